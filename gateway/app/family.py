"""The processes of one `serve`, behind one that forks them: the family, as its supervisor has it.

The family process is forked at once and loads what its members need while the supervisor starts the
stores. It never runs an event loop or a thread, so it can fork a member at any time. It is told
what to do over one connection, never by a signal. What is served is not known here.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from typing import Protocol

from gateway.adapters.embedded.run_as import die_with_parent
from gateway.app.children import ChildFailed, Children, Member, Pipe, call_this_process

_READY_S = 120.0  # it gives each of its members 60
_TAKEN_S = 10.0  # another vocabulary takes a second


class Prepared(Protocol):
    """Who the members are, after all that they need was loaded."""

    def members(self) -> Sequence[Member]: ...

    def take(self, text: str) -> None:
        """The members are others from now on, by the same names: those of this configuration."""
        ...


Prepare = Callable[[], Prepared]


class NotTaken(Exception):
    """The family process goes on as before; the text says why."""


class Family:
    """The family process. Made before there is an event loop; it may be stopped at any time, and
    twice."""

    def __init__(self, prepare: Prepare, stop_s: float) -> None:
        """Fork it. `prepare` is run there: it loads all that the members need, and says who
        they are. Together they end within `stop_s`, or are killed."""
        self._stop_s = stop_s
        context = get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_live, args=(prepare, (theirs, self._pipe), os.getpid())
        )
        self._process.start()
        theirs.close()

    def is_alive(self) -> bool:
        """False once it has ended, by whatever cause; its members end with it."""
        return self._process.is_alive()

    async def begin(self) -> None:
        """The stores are up: start the members. Returns when all are ready; ChildFailed."""
        try:
            self._pipe.send(None)
            async with asyncio.timeout(_READY_S):
                await _readable(self._pipe.fileno())
            failure = self._pipe.recv()
        except TimeoutError:
            failure = f"the processes of this gateway were not ready in {_READY_S:g} s"
        except (OSError, EOFError):  # what it said stands on standard error
            failure = "the processes of this gateway ended before they were ready"
        if failure is not None:
            raise ChildFailed(failure)

    async def take(self, text: str) -> None:
        """Whichever member is started from now on has this configuration; NotTaken."""
        try:
            self._pipe.send(text)
            async with asyncio.timeout(_TAKEN_S):
                await _readable(self._pipe.fileno())
            failure = self._pipe.recv()
        except (OSError, EOFError, TimeoutError) as error:
            raise NotTaken(f"no answer ({type(error).__name__})") from error
        if failure is not None:
            raise NotTaken(failure)

    def close(self) -> None:
        """Tell it to end all, in their order. It is not waited for, and may be told twice."""
        self._pipe.close()

    async def stop(self) -> None:
        """End all, in their order; returns when that is done."""
        self.close()
        try:
            async with asyncio.timeout(self._stop_s):
                await _readable(self._process.sentinel)
        except TimeoutError:
            self._process.kill()
        self._process.join()


async def _readable(descriptor: int) -> None:
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(descriptor)


def _live(prepare: Prepare, pipes: tuple[Pipe, Pipe], parent: int) -> None:
    """The family process: everything it does."""
    pipe, supervisors = pipes
    supervisors.close()  # else the supervisor's end would never be the end
    os.setsid()
    die_with_parent(signal.SIGKILL, parent)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    call_this_process("family")
    gc.disable()  # while only such is made that stays; takes a tenth off
    prepared = prepare()
    gc.freeze()  # nor is it looked through later, which would copy what all share
    gc.enable()
    children = Children(prepared.members())
    try:
        pipe.recv()
        children.start(unless=pipe)
        pipe.send(None)
        while True:
            children.keep(until=pipe)
            pipe.send(_taken(prepared, children, pipe.recv()))
    except ChildFailed as error:
        pipe.send(str(error))
    except (EOFError, OSError):
        return  # the supervisor has changed its mind, or is gone
    finally:
        children.stop()


def _taken(prepared: Prepared, children: Children, text: str) -> str | None:
    """Why it was not taken, or None. The supervisor has checked it, so this is a fault."""
    try:
        prepared.take(text)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    children.become(prepared.members())
    return None
