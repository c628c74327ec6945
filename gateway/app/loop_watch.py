"""How late the event loop of a process runs: one timer a second, and nothing for a call.

A loop that is late serves nobody meanwhile, whoever held it up: long work, a stopped process, a
machine without time for it. So a process that was late by more than a second is not ready, and is
again once it has been in time for a while.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from gateway.ports.tasks import spawn

LATE_S = 1.0
# A process that is late now and then should not come and go with it.
_IN_TIME_S = 5
# A scrape finds what was worst since the one before, at the usual 15 s.
_SHOWN_S = 15


class LoopWatch:
    """Measures once a second; `observe` is told the worst of the last 15 s, in seconds."""

    def __init__(self, observe: Callable[[float], None]) -> None:
        self._observe = observe
        self._late_s: deque[float] = deque(maxlen=_SHOWN_S)

    def start(self) -> asyncio.Task[None]:
        """Measure from now on, until cancelled."""
        return spawn(self._watch(), "loop lag")

    def state(self) -> str:
        """'ok', or why the process should not be given calls."""
        worst_s = max(list(self._late_s)[-_IN_TIME_S:], default=0.0)
        if worst_s <= LATE_S:
            return "ok"
        return f"the event loop was late by {worst_s:.1f} s within the last {_IN_TIME_S} s"

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + 1.0
            await asyncio.sleep(1.0)
            self._late_s.append(max(0.0, loop.time() - due_s))
            self._observe(max(self._late_s))
