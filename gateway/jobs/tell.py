"""Telling people: finds what is news and deals it out to the ways by which people are told.

One gateway of all does so, under a lock, and its `Send`s send. Each step may be done again: news
and deliveries exist once, whoever makes them. How anything is sent is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.period import Calendar
from gateway.core.plan import Plan
from gateway.ports.clock import Clock
from gateway.ports.deliveries import Cap, Deliveries, Way

_REST_S, _NOT_LEADER_REST_S = 1.0, 5.0
_FIND_EVERY_S = 60.0
_NOTICES_MAX = 500  # a round


class Tell:
    """Fulfils jobs.service.Step. `leads`: this process had the lock when it asked last. `lately_ms`
    is when it last dealt out (Unix milliseconds); None: not yet, or another does."""

    name = "tell"

    def __init__(
        self, deliveries: Deliveries, ways: Sequence[Way], plan: Plan, clock: Clock
    ) -> None:
        self._deliveries = deliveries
        self._ways = ways
        self._plan = plan
        self._clock = clock
        self._found_s: float | None = None
        self.leads = False
        self.lately_ms: int | None = None

    async def step(self) -> float:
        """Find news now and then, and deal it out."""
        self.leads = await self._deliveries.lock()
        if not self.leads:
            self.lately_ms = None
            return _NOT_LEADER_REST_S
        now_s = self._clock.monotonic_s()
        if self._found_s is None or now_s - self._found_s >= _FIND_EVERY_S:
            await self._deliveries.find(self._caps(), self._plan.thresholds_percent)
            self._found_s = now_s
        await self._deliveries.deal(_NOTICES_MAX, self._ways)
        self.lately_ms = self._clock.now_ms()
        return _REST_S

    def _caps(self) -> list[Cap]:
        """Of whole tiers, in their period: the plan's."""
        calendar = Calendar(self._plan.anchor_day, self._plan.zone)
        period = calendar.period_at(self._clock.now_ms())
        return [
            Cap(tier.name, tier.tier_tokens, period)
            for tier in self._plan.tiers.values()
            if tier.tier_tokens is not None
        ]
