"""Hands out the caps of whole tiers: every second one round over all shards.

Each shard admits within its own share, so a cap holds whatever becomes of this job: while it does
not run, shares stay as they are. It lowers shares first and raises others by what came of that. A
shard that has lost its counters is told what earlier epochs settled before anybody is given more;
while one does not answer, nothing is raised. It may refuse early, never late.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from gateway.core.period import Calendar
from gateway.core.plan import Plan
from gateway.core.quota.shares import ShareAsk, ShareCode, ShareReply, affordable, free_of, wanted
from gateway.ports.clock import Clock
from gateway.ports.ledger import Ledger, Watermark
from gateway.ports.metrics import JobsMetrics
from gateway.ports.quota_store import StoreUnavailable
from gateway.ports.tier_shares import TierLedger, TierShares

_REST_S = 1.0
_NOT_LEADER_REST_S = 2.0
_AT_ONCE = 32

Stands = dict[int, ShareReply]
"""How the shards stand, as the newest reply of each said."""


@dataclass(frozen=True, slots=True)
class ShareTerms:
    """Which tiers are capped, in whose calendar, over how many shards."""

    plan: Plan
    shards: int

    @property
    def caps(self) -> Mapping[str, int]:
        """Tokens by tier."""
        tiers = self.plan.tiers.values()
        return {tier.name: tier.tier_tokens for tier in tiers if tier.tier_tokens is not None}


class TierSharing:
    """Fulfils jobs.service.Step. Works beside the drain, where that is this process's. Two at once
    are safe: a newer round overtakes the older."""

    name = "tier shares"

    def __init__(
        self,
        shares: TierShares,
        ledgers: tuple[Ledger, TierLedger],
        terms: ShareTerms,
        metrics: JobsMetrics,
        clock: Clock,
    ) -> None:
        self._shares = shares
        self._ledger, self._tier_ledger = ledgers
        self._terms = terms
        self._caps = terms.caps
        self._metrics = metrics
        self._clock = clock
        self._free: dict[str, int] = {}

    async def step(self) -> float:
        """One round for each capped tier."""
        if not self._caps or self._ledger.lock_lost():
            return _NOT_LEADER_REST_S
        for tier, cap_tokens in self._caps.items():
            self._metrics.tier_cap(tier, cap_tokens)
            await self.hand_out(tier, cap_tokens)
        return _REST_S

    async def hand_out(self, tier: str, cap_tokens: int) -> None:
        """One round of one tier. StoreUnavailable, LedgerUnavailable: what it has done is right,
        and the next one goes on."""
        calendar = Calendar(self._terms.plan.anchor_day, self._terms.plan.zone)
        period = calendar.period_at(self._clock.now_ms())
        number = await self._tier_ledger.next_round()
        look = ShareAsk(tier, 0, number, period.start_ms, free_tokens=self._free.get(tier))
        stands: Stands = {}
        await self._ask(stands, [replace(look, shard=shard) for shard in self._all])
        not_whole = [shard for shard in self._all if stands[shard].code is ShareCode.NOT_WHOLE]
        for shard in not_whole:
            await self._make_whole(stands, replace(look, shard=shard))
        if any(reply.code is not ShareCode.STANDS for reply in stands.values()):
            return  # overtaken, closed, at a border, or behind: the next round finds it mended
        self._free[tier] = free_of(cap_tokens, stands)
        self._metrics.tier_used(tier, sum(each.settled_tokens for each in stands.values()))

        def asks(shares: Mapping[int, int]) -> list[ShareAsk]:
            return [
                replace(look, shard=shard, epoch=stands[shard].epoch, wanted_tokens=tokens)
                for shard, tokens in shares.items()
            ]

        to_be = wanted(cap_tokens, stands, number)
        await self._ask(stands, asks(to_be.lowered))
        if any(reply.code is not ShareCode.STANDS for reply in stands.values()):
            return  # what that shard has used is not known any more
        await self._ask(stands, asks(affordable(to_be.raised, cap_tokens, stands)))

    @property
    def _all(self) -> range:
        return range(self._terms.shards)

    async def _make_whole(self, stands: Stands, look: ShareAsk) -> None:
        """Tell a shard what earlier epochs settled, once the ledger has all of that."""
        found = stands[look.shard]
        until = Watermark(look.shard, found.epoch, found.stream_id)
        earlier = await self._tier_ledger.settled_before(look.tier, look.period_start_ms, until)
        if earlier is not None:
            await self._ask(stands, [replace(look, epoch=found.epoch, earlier_tokens=earlier)])

    async def _ask(self, stands: Stands, asks: Iterable[ShareAsk]) -> None:
        """Ask, and note how each shard stands then. StoreUnavailable once all have been asked: of
        what was raised nobody knows then how much stands, so nothing may follow."""
        turns = asyncio.Semaphore(_AT_ONCE)

        async def one(ask: ShareAsk) -> None:
            async with turns:
                stands[ask.shard] = await self._shares.share(ask)

        told = await asyncio.gather(*(one(ask) for ask in asks), return_exceptions=True)
        wrong = [each for each in told if each is not None]
        for error in wrong:
            if not isinstance(error, StoreUnavailable):
                raise error
        if wrong:
            raise wrong[0]
