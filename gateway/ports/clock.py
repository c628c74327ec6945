"""Time as the rules see it, so that a test can hold it still.

Two clocks, because wall time may jump: ids and periods are by the one, durations by the other. The
store's scripts have a clock of their own.
"""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Wall time for ids and periods, monotonic time for durations."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        ...

    def monotonic_s(self) -> float:
        """Seconds on a clock that never goes back; only differences mean anything."""
        ...
