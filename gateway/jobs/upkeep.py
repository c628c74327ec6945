"""Upkeep of the ledger: partitions made ahead of their months, and the sums operators watch.

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
        """Make partitions hourly; show what each tier has used in the periods that run now."""
        now_s = self._clock.monotonic_s()
        if self._prepared_s is None or now_s - self._prepared_s >= _PARTITIONS_EVERY_S:
            await self._ledger.prepare_partitions(self._clock.now_ms())
            self._prepared_s = now_s
        used = await self._ledger.used_by_tier(self._clock.now_ms())
        for tier in self._tiers:
            self._metrics.tier_used(tier, used.get(tier, 0))
        return _REST_S
