"""Making Redis say again what the ledger says of an account.

The ledger is the record, so it is never changed here. What Redis has counted too much is taken back
by the script that takes back what was counted twice, as a difference: so calls under way go on, and
what they use stays counted. What was adjusted is projected anew. Each repair is a line of the
audit, written first.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from gateway.core.identity import Identity
from gateway.core.quota.settle import Correction
from gateway.core.rid import make_rid
from gateway.flow.accounts import project
from gateway.flow.agreement import Difference
from gateway.ports.clock import Clock
from gateway.ports.directory import Directory
from gateway.ports.operators import Note, Operators
from gateway.ports.quota_store import QuotaStore

_ANY_EVENT = f"{2**53 - 1}-0"  # whatever the account was brought back with, it counted after it


@dataclass(frozen=True, slots=True)
class Record:
    """Where it is written what was done, and by whom."""

    operators: Operators
    author: str


class Repair:
    """Repairs accounts."""

    def __init__(
        self, store: QuotaStore, directory: Directory, record: Record, clock: Clock
    ) -> None:
        self._store = store
        self._directory = directory
        self._record = record
        self._clock = clock

    async def repair(self, payer: Identity, off: Difference) -> None:
        """Take the difference out of Redis. Once for each difference that was found: who does not
        know whether it was done compares again."""
        if off.snapshot is None:
            return
        await self._record.operators.note(
            Note(self._record.author, "repair", payer.user_id, _detail(off))
        )
        if off.settled_tokens or off.cost_nano_gbp or off.from_packs or off.packs:
            await self._store.correct(self._correction(payer, off))
        if off.adjusted_tokens:
            await self._directory.raise_revision(payer.payer, off.snapshot.rev)
            told = await self._directory.as_payer(payer.user_id)
            await project(told or payer, self._directory, self._store, self._clock)

    def _correction(self, payer: Identity, off: Difference) -> Correction:
        assert off.snapshot is not None
        return Correction(
            rid=make_rid(self._clock.now_ms(), os.urandom(10)),
            payer=payer.user_id,
            tier=payer.tier,
            member=None,
            epoch=off.snapshot.epoch,
            stream_id=_ANY_EVENT,
            period_start_ms=off.snapshot.period_start_ms,
            tier_period_start_ms=None,
            charged_tokens=off.settled_tokens,
            cost_nano_gbp=off.cost_nano_gbp,
            pack_split=tuple((pack_id, -tokens) for pack_id, tokens in off.packs.items()),
        )


def _detail(off: Difference) -> dict[str, object]:
    return {
        "settled_tokens": off.settled_tokens,
        "from_packs": off.from_packs,
        "adjusted_tokens": off.adjusted_tokens,
        "cost_nano_gbp": off.cost_nano_gbp,
        "packs": dict(off.packs),
    }


def can_repair(off: Difference) -> bool:
    """Whether one step takes it out. Not where packs have paid what no pack has lost."""
    return sum(off.packs.values()) == -off.from_packs
