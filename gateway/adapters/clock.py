"""The machine's clocks, for everything that tells time through a port.

Wall time may be set back by an operator or NTP; nothing here hides that. Durations are measured on
the monotonic clock only.
"""

from __future__ import annotations

import time


class SystemClock:
    """Fulfils ports.clock.Clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()
