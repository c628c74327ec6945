"""Whether Redis and the ledger say the same of an account, at one moment of that account.

Its figures are read together with the id of the newest event, and the ledger is summed up to that
id; so calls under way change nothing. What is on its way from the ledger to Redis (an adjustment, a
charge that is taken back) is a difference for a moment: only one that stays is told. Refuses to
know what is done about it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from gateway.core.quota.entitle import LedgerSums, Snapshot
from gateway.ports.clock import Clock
from gateway.ports.ledger import Ledger, Watermark
from gateway.ports.quota_store import QuotaStore

_POLL_S = 0.05
_LOOKS, _BETWEEN_LOOKS_S = 6, 1.0
_BOOKED_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Difference:
    """What Redis has more than the ledger: tokens settled, of these paid by packs, tokens adjusted,
    cost; and what is left of each pack that differs. `snapshot`: when; None: Redis has no account,
    and will bring back that of the ledger."""

    settled_tokens: int = 0
    from_packs: int = 0
    adjusted_tokens: int = 0
    cost_nano_gbp: int = 0
    packs: Mapping[str, int] = field(default_factory=dict)
    snapshot: Snapshot | None = None

    @property
    def used_tokens(self) -> int:
        """By how much what counts as used is off."""
        return self.settled_tokens + self.adjusted_tokens

    @property
    def packs_tokens(self) -> int:
        """The same of what is left of packs."""
        return sum(abs(tokens) for tokens in self.packs.values())

    @property
    def tokens(self) -> int:
        """How large it is, whichever way; 0 where both agree."""
        by_packs = max(abs(self.from_packs), self.packs_tokens)
        return abs(self.settled_tokens) + abs(self.adjusted_tokens) + by_packs


class Agreement:
    """Compares. `shard_of`: where a payer's events are."""

    def __init__(
        self, store: QuotaStore, ledger: Ledger, shard_of: Callable[[str], int], clock: Clock
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._shard_of = shard_of
        self._clock = clock

    async def difference(self, payer: str, until_s: float) -> Difference | None:
        """Of one account, now; None where the ledger has not booked what Redis had counted until
        then (the loop's time)."""
        snapshot = await self._store.snapshot(payer)
        if snapshot is None:
            return Difference()
        found = await self._at(payer, snapshot, until_s)
        if found is not None and found.packs:
            # What packs have left is known of now only: it says something where nothing moved.
            after = await self._store.snapshot(payer)
            if after is None or after.from_packs != snapshot.from_packs:
                return replace(found, packs={})
        return found

    async def lasting(self, payers: Collection[str]) -> dict[str, Difference | None]:
        """Those that differ at every look for some seconds; None: of these nothing can be said."""
        suspects: dict[str, Difference | None] = dict.fromkeys(payers)
        for look in range(_LOOKS):
            if look:
                await asyncio.sleep(_BETWEEN_LOOKS_S)
            until_s = asyncio.get_running_loop().time() + _BOOKED_WITHIN_S
            found = {payer: await self.difference(payer, until_s) for payer in suspects}
            suspects = {payer: off for payer, off in found.items() if off is None or off.tokens}
            if not suspects:
                break
        return suspects

    async def _at(self, payer: str, snapshot: Snapshot, until_s: float) -> Difference | None:
        until = Watermark(self._shard_of(payer), snapshot.epoch, snapshot.stream_id)
        while True:
            sums = await self._ledger.sums(payer, None, snapshot.period_start_ms, until)
            if sums is not None:
                return _difference(snapshot, sums, self._clock.now_ms())
            if asyncio.get_running_loop().time() >= until_s:
                return None
            await asyncio.sleep(_POLL_S)


def _difference(snapshot: Snapshot, sums: LedgerSums, now_ms: int) -> Difference:
    """Of packs those that can still be spent; refunded ones are told with nothing left."""
    left = {pack.pack_id: pack.tokens for pack in snapshot.packs}
    packs = {
        pack.pack_id: left.get(pack.pack_id, 0) - pack.tokens
        for pack in sums.packs
        if pack.ends_ms > now_ms
    }
    return Difference(
        settled_tokens=snapshot.settled_tokens - sums.settled_tokens,
        from_packs=snapshot.from_packs - sums.from_packs,
        adjusted_tokens=snapshot.adjusted_tokens - sums.adjusted_tokens,
        cost_nano_gbp=snapshot.cost_nano_gbp - sums.cost_nano_gbp,
        packs={pack_id: tokens for pack_id, tokens in packs.items() if tokens},
        snapshot=snapshot,
    )
