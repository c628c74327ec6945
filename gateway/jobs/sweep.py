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
from gateway.core.pricing import PriceTable
from gateway.ports.clock import Clock
from gateway.ports.metrics import JobsMetrics
from gateway.ports.quota_store import LapsedHold, Leases, QuotaStore, SettleCode, Settlement

_ROWS_MAX = 200  # a shard and round
_REST_S = 1.0
_log = logging.getLogger("gateway.sweep")


@dataclass(frozen=True, slots=True)
class SweepTerms:
    """Where to look, how long after its lease a hold may still be ended by its own gateway, and
    what expired tokens cost."""

    shards: int
    grace_ms: int
    prices: PriceTable


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
        """End every hold that lapsed; rest a second when there was no full batch."""
        still_open, full = 0, False
        for shard in range(self._terms.shards):
            lapsed = await self._leases.lapsed(shard, self._terms.grace_ms, _ROWS_MAX)
            for hold in lapsed:
                await self._expire(hold)
            full = full or len(lapsed) == _ROWS_MAX
            still_open += await self._leases.count(shard)
        self._metrics.holds_open(still_open)
        return 0.0 if full else _REST_S

    async def _expire(self, lapsed: LapsedHold) -> None:
        try:
            tail = decode_tail(lapsed.tail)
        except EventError as error:
            _log.error("hold %s cannot be ended: %s", lapsed.rid, error)
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
                grace_ms=self._terms.grace_ms,
            ),
        )
        if reply.code is SettleCode.SETTLED:
            self._metrics.expired()
            _log.warning("hold %s expired: %d tokens booked", lapsed.rid, event.charged_tokens)
