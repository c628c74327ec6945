"""Processes of a benchmark: started on a core, heard when ready, their CPU time and memory read.

Every one dies with this process, however it ends. Linux only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from gateway.adapters.embedded.run_as import die_with_parent

ROOT = Path(__file__).resolve().parents[1]
_STOP_S = 40.0


class BenchError(Exception):
    """A measurement cannot be made; the text says why and what to do."""


class Started:
    """One process that says `ready` and then whatever else on its first line."""

    def __init__(self, name: str, argv: Sequence[str], place: Path, env: Mapping[str, str]) -> None:
        """Start it in the folder `place`, where also its words on standard error are kept."""
        self.name, self._log = name, place / f"{name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                argv,
                cwd=place,
                env={**os.environ, "PYTHONPATH": str(ROOT), **env},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                preexec_fn=partial(die_with_parent, signal.SIGTERM, os.getpid()),
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode().split()
        if line[:1] != ["ready"]:
            self.stop()
            raise BenchError(f"{name} did not start: {self._log.read_text()[-2000:]}")
        self.said = line[1:]

    @property
    def pid(self) -> int:
        return self._process.pid

    def log(self) -> str:
        """What it said on standard error."""
        return self._log.read_text()

    def stop(self) -> int:
        """SIGTERM, then wait; the exit code."""
        self._process.terminate()
        try:
            return self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait(_STOP_S)


def python(module: str, *words: str) -> tuple[str, ...]:
    """The command that runs a module of this tree."""
    return (sys.executable, "-m", module, *words)


def cores() -> tuple[int, int]:
    """The core of what is measured, and the core of everything else."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise BenchError("two cores are needed: one for what is measured, one for the rest")
    return usable[0], usable[1]


def pin(pid: int, core: int) -> None:
    """Keep all threads of a process, and those it will start, on one core."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread), {core})


def cpu_s(pids: Iterable[int]) -> float:
    """User and system time of all threads these processes ever had, by the nanosecond.

    The number of a process's clock is made as glibc's clock_getcpuclockid(3) makes it.
    """
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


def children_of(pid: int) -> dict[int, str]:
    """All processes below one, with their command lines."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                stat = (entry / "stat").read_text()
                parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found: dict[int, str] = {}
    for each in parents:
        above = each
        while above in parents and above != pid:
            above = parents[above]
        if above == pid and each != pid:
            with suppress(OSError):
                command = Path(f"/proc/{each}/cmdline").read_bytes()
                found[each] = command.replace(b"\0", b" ").decode().strip()
    return found


def loop_of(pid: int) -> str:
    """The event loop a Python process runs on, judged by what it has loaded."""
    return "uvloop" if "uvloop" in Path(f"/proc/{pid}/maps").read_text() else "asyncio"
