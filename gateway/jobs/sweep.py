"""The sweeper: ends holds whose gateway did not.

It finds holds whose lease and grace are over, and settles them as expired; the script looks at the
lease once more, so a heartbeat that comes at the same moment wins. What is charged then is the
rule of `core.hold.expiry_event`; a settlement that comes even later corrects it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from gateway.core.event import EventError, decode_tail, encode_event
from gateway.core.hold import expiry_event
from gateway.core.identity import member_of
from gateway.core.pricing import PriceTable
from gateway.core.quota.settle import LapsedHold, SettleCode, Settlement
from gateway.ports.clock import Clock
from gateway.ports.metrics import JobsMetrics
from gateway.ports.quota_store import Leases, QuotaStore, StoreUnavailable

_ROWS_MAX = 200  # a shard and round
_REST_S = 1.0
_log = logging.getLogger("gateway.sweep")


@dataclass(frozen=True, slots=True)
class SweepTerms:
    """Where to look, how long after its lease a hold may still be ended by its own gateway, what
    expired tokens cost, and which thresholds are told when they are crossed."""

    shards: int
    grace_ms: int
    prices: PriceTable
    thresholds_percent: tuple[int, ...]


class Sweep:
    """Fulfils jobs.service.Step. Several sweepers do no harm: a hold ends once."""

    name = "sweep"

    def __init__(
        self,
        leases: Leases,
        store: QuotaStore,
        terms: SweepTerms,
        metrics: JobsMetrics,
        clock: Clock,
    ) -> None:
        self._leases = leases
        self._store = store
        self._terms = terms
        self._metrics = metrics
        self._clock = clock

    async def step(self) -> float:
        """End every hold that lapsed; rest a second when there was no full batch.
        StoreUnavailable, after all others, when some shard's server did not answer."""
        still_open, full = 0, False
        silent: StoreUnavailable | None = None
        for shard in range(self._terms.shards):
            try:
                lapsed = await self._leases.lapsed(shard, self._terms.grace_ms, _ROWS_MAX)
                for hold in lapsed:
                    await self._expire(hold)
                still_open += await self._leases.count(shard)
            except StoreUnavailable as error:  # of a cluster, the other nodes may answer
                silent = error
            else:
                full = full or len(lapsed) == _ROWS_MAX
        if silent is not None:
            raise silent
        self._metrics.holds_open(still_open)
        return 0.0 if full else _REST_S

    async def _expire(self, lapsed: LapsedHold) -> None:
        try:
            tail = decode_tail(lapsed.tail)
        except EventError as error:
            await self._let_go(lapsed, error)
            return
        price = self._terms.prices.by_id(tail.price_id, tail.model) or self._terms.prices.price_for(
            tail.model, self._clock.now_ms()
        )
        event = expiry_event(lapsed.rid, tail, price, lapsed.hold_tokens, lapsed.progress_tokens)
        reply = await self._store.expire(
            lapsed,
            Settlement(
                rid=lapsed.rid,
                payer=tail.payer,
                kind="expire",
                epoch=lapsed.epoch,
                period_start_ms=lapsed.period_start_ms,
                charged_tokens=event.charged_tokens,
                cost_nano_gbp=event.cost_nano_gbp,
                event_json=encode_event(event),
                tier=tail.tier,
                member=member_of(tail.payer, tail.user_id),
                tier_period_start_ms=tail.tier_period_start_ms,
                limit_tokens=tail.limit_tokens,
                thresholds_percent=self._terms.thresholds_percent,
                grace_ms=self._terms.grace_ms,
            ),
        )
        if reply.code is SettleCode.SETTLED:
            self._metrics.expired()
            _log.warning("hold %s expired: %d tokens booked", lapsed.rid, event.charged_tokens)

    async def _let_go(self, lapsed: LapsedHold, error: EventError) -> None:
        """Nobody can tell whose it was, so no row can be written; but it must not hold for ever."""
        _log.error("hold %s is released unbooked: %s", lapsed.rid, error)
        await self._store.expire(
            lapsed,
            Settlement(
                rid=lapsed.rid,
                payer="",
                kind="release",
                epoch=lapsed.epoch,
                period_start_ms=lapsed.period_start_ms,
                charged_tokens=0,
                cost_nano_gbp=0,
                event_json=b"{}",
                tier="",
            ),
        )
