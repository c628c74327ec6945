"""Forked processes: started, kept going, and ended in order.

They are copies of a process that has everything loaded and runs neither a thread nor an event loop,
so that one more costs milliseconds, shares what was loaded, and starts clean. Each dies with the
process that forked it, however that ends. What they do is not known here.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any, TypeAlias

from gateway.adapters.embedded.run_as import die_with_parent

_READY_S = 60.0
_START_AGAIN_S = 1.0
_log = logging.getLogger("gateway.serve")

Say: TypeAlias = Callable[[Mapping[str, str]], None]
"""Tells whoever started a process that it is ready, and where it can be reached."""

Pipe: TypeAlias = "Connection[Any, Any]"


class ChildFailed(Exception):
    """A process ended before it was ready; what it said stands above, on standard error."""


@dataclass(frozen=True, slots=True)
class Member:
    """What a process is called, and what it does until SIGTERM: its exit code.

    Those of an earlier `turn` end before the next are told to; `stop_s` later they are killed.
    """

    name: str
    work: Callable[[Say], int]
    turn: int
    stop_s: float


class Children:
    """All processes of one parent."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._children = [_Child(member) for member in members]

    def start(self, unless: Pipe) -> None:
        """Start all, and return when they are ready, or when `unless` has something to say.

        ChildFailed when one ends instead.
        """
        for child in self._children:
            child.start()
        for child in self._children:
            if not child.ready(unless):
                return

    def keep(self, until: Pipe) -> None:
        """Start again whoever ends, until there is something to read from `until`."""
        while True:
            living = [child.sentinel for child in self._children if child.due_s is None]
            dues_s = [child.due_s for child in self._children if child.due_s is not None]
            wait_s = max(0.0, min(dues_s) - time.monotonic()) if dues_s else None
            if until in wait([until, *living], wait_s):
                return
            for child in self._children:
                child.start_again_if_due()

    def become(self, members: Sequence[Member]) -> None:
        """Whoever is started from now on does this work; names are the same as before."""
        by_name = {member.name: member for member in members}
        for child in self._children:
            child.member = by_name[child.member.name]

    def stop(self) -> None:
        """End them turn by turn; whoever does not end in its time is killed."""
        for turn in sorted({child.member.turn for child in self._children}):
            group = [child for child in self._children if child.member.turn == turn]
            for child in group:
                child.ask_to_end()
            until_s = time.monotonic() + max(child.member.stop_s for child in group)
            for child in group:
                child.end(until_s)


class _Child:
    def __init__(self, member: Member) -> None:
        self.member = member
        self.due_s: float | None = None
        """When it is started again; None while it runs."""
        self._process: ForkProcess | None = None
        self._hears: Pipe | None = None

    @property
    def sentinel(self) -> int:
        """Can be waited for: the process has ended."""
        assert self._process is not None
        return self._process.sentinel

    def start(self) -> None:
        context = get_context("fork")
        self._hears, says = context.Pipe(duplex=False)
        self._process = context.Process(target=_live, args=(self.member, says, os.getpid()))
        self._process.start()
        says.close()
        self.due_s = None

    def ready(self, unless: Pipe) -> bool:
        """Wait until it is ready. False when `unless` has something to say first."""
        assert self._hears is not None
        heard = wait([self._hears, unless], _READY_S)
        if not heard:
            raise ChildFailed(f"the {self.member.name} process was not ready in {_READY_S:g} s")
        if unless in heard:
            return False
        try:
            self._hears.recv()
        except EOFError:
            raise ChildFailed(f"the {self.member.name} process ended before it was ready") from None
        return True

    def start_again_if_due(self) -> None:
        assert self._process is not None
        if self.due_s is not None:
            if time.monotonic() >= self.due_s:
                self.start()
        elif not self._process.is_alive():
            _log.error(
                "the %s process ended with code %s and is started again",
                self.member.name,
                self._process.exitcode,
            )
            self.due_s = time.monotonic() + _START_AGAIN_S

    def ask_to_end(self) -> None:
        if self._process is not None:
            self._process.terminate()

    def end(self, until_s: float) -> None:
        if self._process is None:
            return
        self._process.join(max(0.0, until_s - time.monotonic()))
        if self._process.is_alive():
            _log.warning(
                "the %s process did not stop in %g s: killed", self.member.name, self.member.stop_s
            )
            self._process.kill()
            self._process.join()


def call_this_process(name: str) -> None:
    """What `ps -o comm` and `top` show of it: at most 15 characters, and only on Linux."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(name)


def _live(member: Member, says: Pipe, parent: int) -> None:
    die_with_parent(signal.SIGKILL, parent)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the supervisor's, who tells what is new
    call_this_process(member.name)
    raise SystemExit(member.work(says.send))
