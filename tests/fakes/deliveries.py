"""Deliveries in a list: what is due, and what became of each."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.identity import Identity
from gateway.core.period import Calendar
from gateway.ports.deliveries import Cap, Delivery, Ending, Way
from tests.fakes.clock import DAY_MS

LONDON = Calendar(1, "Europe/London")
ADA = Identity("ada", "ada", "full", 1, LONDON)
START_MS = LONDON.period_at(1_782_000_000_000).start_ms  # June 2026
NOW_MS = START_MS + 10 * DAY_MS
CROSSING = Delivery(
    notification_id=7,
    channel="email",
    address="ada@example.org",
    attempts=1,
    kind="crossing",
    threshold=80,
    at_ms=NOW_MS - 1000,
    period_ms=START_MS,
    now_ms=NOW_MS,
    identity=ADA,
    facts={"tier": "full"},
    used_tokens=13_000,
    pack_tokens=320,
    is_wanted=True,
)


class Listed:
    """Fulfils ports.deliveries.Deliveries with a list, and notes what became of each."""

    def __init__(self, *due: Delivery, leads: bool = True) -> None:
        self.due, self.leads = list(due), leads
        self.ended: list[tuple[int, Ending, str | None]] = []
        self.later: list[tuple[int, int]] = []
        self.caps: list[Cap] = []
        self.found = self.dealt = 0

    async def lock(self) -> bool:
        return self.leads

    def unlock(self) -> None: ...

    async def find(self, caps: Sequence[Cap], thresholds_percent: Sequence[int]) -> None:
        self.found += 1
        self.caps = list(caps)

    async def deal(self, notices_max: int, ways: Sequence[Way]) -> None:
        self.dealt += 1

    async def take(self, way: Way, for_s: int) -> Delivery | None:
        return self.due.pop(0) if self.due else None

    async def end(self, delivery: Delivery, state: Ending, error: str | None) -> None:
        self.ended.append((delivery.notification_id, state, error))

    async def put_off(self, delivery: Delivery, for_s: int, error: str) -> None:
        self.later.append((delivery.notification_id, for_s))
