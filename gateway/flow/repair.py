"""Making Redis and the ledger say the same again of an account.

As a rule the ledger is right. What Redis has counted too much is taken back by the script that
takes back what was counted twice, as a difference: so calls under way go on, and what they use
stays counted. What was adjusted is projected anew. Where a person says that the ledger lost it,
the difference is booked there as a correction instead. Each repair is a line of the audit.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from gateway.core.event import PackSplit
from gateway.core.identity import Identity
from gateway.core.quota.entitle import Snapshot
from gateway.core.quota.settle import Correction
from gateway.core.rid import make_rid
from gateway.flow.accounts import project
from gateway.flow.agreement import Difference
from gateway.ports.clock import Clock
from gateway.ports.corrections import Corrections, HandCorrection
from gateway.ports.directory import Directory
from gateway.ports.operators import Note, Operators
from gateway.ports.quota_store import QuotaStore

_ANY_EVENT = f"{2**53 - 1}-0"  # whatever the account was brought back with, it counted after it


@dataclass(frozen=True, slots=True)
class Record:
    """Where it is written what was done, and by whom."""

    operators: Operators
    corrections: Corrections
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
            await self._project(payer, off.snapshot)

    async def book(self, payer: Identity, off: Difference, reason: str) -> None:
        """Book the difference as a correction, because Redis is right: the ledger lacks what was
        used. As `repair`, once; adjustments are the ledger's own, and told to Redis anew."""
        if off.snapshot is None:
            return
        await self._record.corrections.book(
            HandCorrection(
                event_id=self._new_rid(),
                payer=payer.user_id,
                tier=payer.tier,
                period_start_ms=off.snapshot.period_start_ms,
                charged_tokens=off.settled_tokens,
                cost_nano_gbp=off.cost_nano_gbp,
                pack_split=_split(off),
                reason=reason,
                author=self._record.author,
            )
        )
        if off.adjusted_tokens:
            await self._project(payer, off.snapshot)

    async def _project(self, payer: Identity, snapshot: Snapshot) -> None:
        await self._directory.raise_revision(payer.payer, snapshot.rev)
        told = await self._directory.as_payer(payer.user_id)
        await project(told or payer, self._directory, self._store, self._clock)

    def _new_rid(self) -> str:
        return make_rid(self._clock.now_ms(), os.urandom(10))

    def _correction(self, payer: Identity, off: Difference) -> Correction:
        assert off.snapshot is not None
        return Correction(
            rid=self._new_rid(),
            payer=payer.user_id,
            tier=payer.tier,
            member=None,
            epoch=off.snapshot.epoch,
            stream_id=_ANY_EVENT,
            period_start_ms=off.snapshot.period_start_ms,
            tier_period_start_ms=None,
            charged_tokens=off.settled_tokens,
            cost_nano_gbp=off.cost_nano_gbp,
            pack_split=_split(off),
        )


def _split(off: Difference) -> PackSplit:
    """What packs paid in Redis beyond what they paid in the ledger."""
    return tuple((pack_id, -tokens) for pack_id, tokens in off.packs.items())


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


def can_book(off: Difference) -> bool:
    """Whether the ledger can lack it. An entry that is there was served, whatever Redis forgot: so
    nothing is booked that would lower what was used."""
    used = off.settled_tokens or off.cost_nano_gbp
    falls = (off.settled_tokens, off.cost_nano_gbp, *(-tokens for tokens in off.packs.values()))
    return bool(used) and min(falls) >= 0
