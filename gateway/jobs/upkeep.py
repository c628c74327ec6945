"""Upkeep of the ledger: partitions ahead of their months, closed periods, sums operators watch.

Nothing waits for it: a row without its partition goes to the default one, a sum that is late is
half a minute old.
"""

from __future__ import annotations

from collections.abc import Collection

from gateway.ports.clock import Clock
from gateway.ports.ledger import Ledger
from gateway.ports.metrics import JobsMetrics

_REST_S = 30.0  # one aggregate over the running periods; about every second scrape
_PARTITIONS_EVERY_S = 3600.0
_CLOSED_ROWS_MAX = 2000  # a round: with a million payers the closing takes some hours, not one


class Upkeep:
    """Fulfils jobs.service.Step."""

    name = "upkeep"

    def __init__(
        self, ledger: Ledger, tiers: Collection[str], metrics: JobsMetrics, clock: Clock
    ) -> None:
        self._ledger = ledger
        self._tiers = tiers
        self._metrics = metrics
        self._clock = clock
        self._prepared_s: float | None = None

    async def step(self) -> float:
        """Make partitions hourly; close periods that are over, and show what each tier has used in
        those that run now."""
        now_s = self._clock.monotonic_s()
        if self._prepared_s is None or now_s - self._prepared_s >= _PARTITIONS_EVERY_S:
            await self._ledger.prepare_partitions(self._clock.now_ms())
            self._prepared_s = now_s
        await self._ledger.close_periods(self._clock.now_ms(), _CLOSED_ROWS_MAX)
        used = await self._ledger.used_by_tier(self._clock.now_ms())
        for tier in self._tiers:
            self._metrics.tier_used(tier, used.get(tier, 0))
        return _REST_S
