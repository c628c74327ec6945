"""When each row is due: the trace's own rhythm, faster or slower, or no rhythm at all.

Time comes from outside, so that a test can hold it still. It promises that no row is early, and
knows how late the latest was; what is sent when a row is due is not known here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable


class Pace:
    """The rhythm of one replay, which begins with the first row that is waited for.

    `speed` 1 keeps the trace's time, 60 makes an hour a minute; 0 waits for nothing.
    """

    def __init__(
        self,
        speed: float,
        monotonic_s: Callable[[], float],
        sleep_s: Callable[[float], Awaitable[None]],
    ) -> None:
        self._speed = speed
        self._monotonic_s = monotonic_s
        self._sleep_s = sleep_s
        self._began_s: float | None = None
        self.behind_s = 0.0

    async def due(self, at_s: float) -> None:
        """Return when a row that stands `at_s` seconds after the trace's first one is due."""
        if not self._speed:
            return
        now_s = self._monotonic_s()
        if self._began_s is None:
            self._began_s = now_s
        early_s = self._began_s + at_s / self._speed - now_s
        if early_s > 0:
            await self._sleep_s(early_s)
        else:
            self.behind_s = max(self.behind_s, -early_s)
