"""A bound on waiting for Redis that does not blame Redis for a busy event loop.

When the time is over, replies may have arrived that this process had no turn to read. So the loop
gets a few more turns, each of which polls the sockets, before the wait is given up. A server that
is really silent costs those turns and nothing more.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

# One turn reads the socket, the next wakes the reader, the third lets it return.
_TURNS = 3


class Deadline:
    """`with Deadline(until_s):` around awaits of the current task; TimeoutError when it is over.

    `until_s` is a time of the running loop's clock. As asyncio.timeout_at, but for the turns; a
    cancellation from outside passes unchanged.
    """

    def __init__(self, until_s: float) -> None:
        self._until_s = until_s
        self._is_over = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("a deadline is for a task")
        self._task = task
        self._cancelling = task.cancelling()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle = self._loop.call_at(self._until_s, self._look, _TURNS)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if not self._is_over:
            return
        others = self._task.uncancel() > self._cancelling
        if kind is asyncio.CancelledError and not others:
            raise TimeoutError from error

    def _look(self, turns: int) -> None:
        if turns:
            self._timer = self._loop.call_soon(self._look, turns - 1)
        else:
            self._is_over = True
            self._task.cancel()
