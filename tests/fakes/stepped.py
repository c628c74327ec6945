"""A coroutine that counts its steps and has its task cancelled at one of them.

A step is one resumption. Cancelled "while it waits", a task never learns what it waited for;
cancelled "as it comes", what it waited for has happened and its result is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Literal

Moment = Literal["while it waits", "as it comes"]


async def turn() -> None:
    """What any network does: an answer comes in another turn of the loop."""
    loop = asyncio.get_running_loop()
    comes: asyncio.Future[None] = loop.create_future()
    loop.call_soon(lambda: None if comes.done() else comes.set_result(None))
    await comes


class Stepped(Coroutine[Any, Any, None]):
    """`work`, whose task is cancelled at the await that its step number `at` ends in."""

    def __init__(self, work: Coroutine[Any, Any, None], at: int, moment: Moment) -> None:
        self._work = work
        self._at = at
        self._moment = moment
        self.steps = 0

    async def run(self) -> bool:
        """To its end; False when it ended before the step at which it was to be cancelled."""
        task: asyncio.Task[None] = asyncio.ensure_future(self)
        await asyncio.wait([task])
        if task.cancelled():
            return True
        error = task.exception()
        if error is not None:
            raise error
        if self.steps >= self._at + 1:
            raise AssertionError(f"the cancellation at step {self._at} was lost on the way")
        return False

    def send(self, value: Any) -> Any:
        self.steps += 1
        waits_for = self._work.send(value)
        if self.steps == self._at:
            task = asyncio.current_task()
            if task is None:
                raise AssertionError("a step is taken by a task")
            if self._moment == "while it waits" or waits_for is None:
                task.cancel()
            else:  # called before the task's own callback, which would resume it
                waits_for.add_done_callback(lambda _: task.cancel())
        return waits_for

    def throw(self, *error: Any) -> Any:
        return self._work.throw(*error)

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Any:
        raise AssertionError("to be run as a task")
