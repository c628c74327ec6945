"""An event loop without a clock and without input: time jumps to whatever comes next.

A run on it is the same each time, however busy the machine is, and waits for nothing. What belongs
to one process of the simulated world carries that process in its context; once the process is
killed nothing of it runs any more, not even a `finally`, as after kill -9. It refuses to know
sockets, threads and signals. Built on asyncio's own BaseEventLoop, of which only the queue and the
time are replaced: uvloop has no such seam, and a library for one page of code would be one more
dependency to trust with the order of things.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from itertools import count
from random import Random
from typing import Any, TypeVarTuple

_Ts = TypeVarTuple("_Ts")
_STEPS_MAX = 400_000  # far beyond any run; a loop that spins in no time would never end


class Process:
    """One process of the world. `name` is for traces; `dead` ones never run again."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False


PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


class StandsStill(Exception):
    """Nothing is left that could ever run, or time does not pass any more."""


class Turn(asyncio.TimerHandle):
    """A callback that waits for its turn. Leaner than asyncio's own handles, of which a run makes
    thousands: it keeps no traceback and tells the loop nothing when it is cancelled."""

    __slots__ = ("args", "callback", "context", "is_cancelled", "process")

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None
    ) -> None:
        self.callback, self.args = callback, args
        self.context = copy_context() if context is None else context
        self.process: Process | None = self.context.get(PROCESS)
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True
        self.callback, self.args = print, ()

    def cancelled(self) -> bool:
        return self.is_cancelled


Happening = tuple[Callable[..., object], tuple[Any, ...]]


class VirtualLoop(asyncio.BaseEventLoop):
    """`shuffle`: what is ready at one moment runs in an order that chance decides, not in that of
    its coming; and so do timers that are due at one moment."""

    def __init__(self, shuffle: Random | None = None) -> None:
        super().__init__()
        self._now_s = 0.0
        self._shuffle = shuffle
        self._numbers = count()
        self._turns: list[Turn | Happening] = []
        self._timers: list[tuple[float, int, Turn | Happening]] = []
        self._steps = 0
        self._all_live = False
        self._passed_over: list[Turn] = []
        self.complaints: list[str] = []
        self.set_exception_handler(self._complain)

    def time(self) -> float:
        return self._now_s

    def call_soon(
        self,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> Turn:
        turn = Turn(callback, args, context)
        self._turns.append(turn)
        return turn

    def call_later(
        self,
        delay: float,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> Turn:
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> Turn:
        turn = Turn(callback, args, context)
        heapq.heappush(self._timers, (when, next(self._numbers), turn))
        return turn

    def befall(self, delay_s: float, callback: Callable[[*_Ts], object], *args: *_Ts) -> None:
        """Something that happens whoever is alive, and is never taken back: as `call_later` in the
        context of nobody, for less."""
        when = self._now_s + delay_s
        heapq.heappush(self._timers, (when, next(self._numbers), (callback, args)))

    def revive(self) -> None:
        """From now on killed processes run too, so that their tasks can be ended in order. A task
        whose turn was passed over would wait for it for ever."""
        self._all_live = True
        self._turns += self._passed_over
        self._passed_over = []

    def _run_once(self) -> None:
        """What BaseEventLoop's `run_forever` calls until it is told to stop."""
        if not self._turns:
            self._pass_time()
        turns, self._turns = self._turns, []
        if self._shuffle is not None and len(turns) > 1:
            self._shuffle.shuffle(turns)
        self._steps += 1
        if self._steps > _STEPS_MAX:
            raise StandsStill(f"still running after {_STEPS_MAX} steps, at {self._now_s:.3f} s")
        for turn in turns:
            if isinstance(turn, tuple):
                turn[0](*turn[1])
                continue
            if turn.is_cancelled:
                continue
            if turn.process is not None and turn.process.dead and not self._all_live:
                self._passed_over.append(turn)
                continue
            try:
                turn.context.run(turn.callback, *turn.args)
            except Exception as error:
                self.call_exception_handler({"message": "in a callback", "exception": error})

    def _pass_time(self) -> None:
        """Go to the next moment at which something is due, and make that ready."""
        timers, turns = self._timers, self._turns
        while timers and not turns:
            now_s = self._now_s = max(self._now_s, timers[0][0])
            while timers and timers[0][0] <= now_s:
                turn = heapq.heappop(timers)[2]
                if isinstance(turn, tuple) or not turn.is_cancelled:
                    turns.append(turn)
        if not turns:
            raise StandsStill(f"everybody waits and nothing will come, at {self._now_s:.3f} s")

    def _complain(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An error that nobody has taken. A killed process takes none any more."""
        process = PROCESS.get()
        if process is None or not process.dead:
            self.complaints.append(f"{context['message']}: {context.get('exception')!r}")
