"""A clock that moves only when a test moves it."""

from __future__ import annotations

import time

DAY_MS = 86_400_000


class HandClock:
    """Fulfils ports.clock.Clock. It begins at the machine's time, because the scripts judge leases
    and periods by the store's own clock."""

    def __init__(self) -> None:
        self.ms = time.time_ns() // 1_000_000
        self.seconds = 1000.0

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.seconds

    def pass_s(self, seconds: float) -> None:
        self.seconds += seconds
        self.ms += round(seconds * 1000)
