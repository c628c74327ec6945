"""How long clients are waited for: one limit for many at once, with one timer for all of them.

Everybody has the same limit, so whoever began first is late first: to begin and to end are one
step in a dict each, and the timer runs once for those that began while it was set. What a wait is
for, and what follows when it was in vain, is not known here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Patience(Generic[T]):
    """Calls `late` with whoever has waited for `limit_s` seconds and has not ended by then."""

    def __init__(self, limit_s: float, late: Callable[[T], None]) -> None:
        self._limit_s = limit_s
        self._late = late
        self._until_s: dict[T, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, whom: T) -> None:
        """From now on; nothing changes for one that is waited for already."""
        if whom in self._until_s:
            return
        loop = asyncio.get_running_loop()
        until_s = self._until_s[whom] = loop.time() + self._limit_s
        if self._timer is None:
            self._timer = loop.call_at(until_s, self._run, loop)

    def end(self, whom: T) -> None:
        """It came, or is not waited for any more."""
        self._until_s.pop(whom, None)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        now_s = loop.time()
        while self._until_s:
            first, until_s = next(iter(self._until_s.items()))
            if until_s > now_s:
                self._timer = loop.call_at(until_s, self._run, loop)
                return
            del self._until_s[first]
            self._late(first)
        self._timer = None
