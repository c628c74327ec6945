"""Processes of a benchmark: started on a core, heard when ready, their CPU time and memory read.

Every one dies with this process, however it ends. Linux only.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from gateway.adapters.embedded.run_as import die_with_parent

ROOT = Path(__file__).resolve().parents[1]
_STOP_S = 40.0
_LISTEN = "0A"  # the state in /proc/net/tcp


class BenchError(Exception):
    """A measurement cannot be made; the text says why and what to do."""


class Process:
    """One process, and what it says on standard error, kept in a file of the folder `place`."""

    def __init__(self, name: str, argv: Sequence[str], place: Path, env: Mapping[str, str]) -> None:
        self.name, self._log = name, place / f"{name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                argv,
                cwd=place,
                env={**with_tree(), **env},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                preexec_fn=partial(die_with_parent, signal.SIGTERM, os.getpid()),
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ready(self) -> list[str]:
        """Wait until it says `ready`; what else it says on that line. BenchError if it ends."""
        assert self._process.stdout is not None
        words = self._process.stdout.readline().decode().split()
        if words[:1] != ["ready"]:
            self.stop()
            raise BenchError(f"{self.name} did not start:\n{self.log()}")
        return words[1:]

    def log(self) -> str:
        """The end of what it said on standard error."""
        return self._log.read_text()[-2000:]

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def ended(self) -> bool:
        """True once it does not run any more."""
        return self._process.poll() is not None

    def stop(self) -> int:
        """SIGTERM, then wait; the exit code."""
        self._process.terminate()
        try:
            return self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait(_STOP_S)
        finally:
            if self._process.stdout is not None:
                self._process.stdout.close()


def with_tree() -> dict[str, str]:
    """The environment of a process that imports from this tree, wherever it runs."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def python(module: str, *words: str) -> tuple[str, ...]:
    """The command that runs a module of this tree."""
    return (sys.executable, "-m", module, *words)


def tool(name: str, package: str) -> str:
    """Where a program is that the benchmark needs; BenchError says how to get it."""
    places = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
    found = shutil.which(name, path=places)
    if found is None:
        raise BenchError(
            f"{name} is not installed. On Debian and Ubuntu: apt-get install {package}"
        )
    return found


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cores() -> tuple[int, int]:
    """The core of what is measured, and the core of everything else."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise BenchError("two cores are needed: one for what is measured, one for the rest")
    return usable[0], usable[1]


@contextmanager
def kept_on(core: int) -> Iterator[None]:
    """This process, and those that it starts meanwhile, on one core."""
    before = os.sched_getaffinity(0)
    pin(os.getpid(), core)
    try:
        yield
    finally:
        for thread in _threads(os.getpid()):
            os.sched_setaffinity(thread, before)


def pin(pid: int, core: int) -> None:
    """Keep all threads of a process, and those it will start, on one core."""
    for thread in _threads(pid):
        with suppress(ProcessLookupError):
            os.sched_setaffinity(thread, {core})


def _threads(pid: int) -> list[int]:
    return [int(name) for name in os.listdir(f"/proc/{pid}/task")]


def cpu_s(pids: Iterable[int]) -> float:
    """User and system time of all threads these processes ever had, by the nanosecond.

    The number of a process's clock is made as glibc's clock_getcpuclockid(3) makes it.
    """
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


def family_of(pid: int) -> tuple[int, ...]:
    """A process and all below it."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                stat = (entry / "stat").read_text()
                parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found = [pid]
    for above in found:  # grows as children are found
        found += [each for each, parent in parents.items() if parent == above]
    return tuple(found)


def listening(pids: Iterable[int], port: int) -> tuple[int, ...]:
    """Those of the processes that accept connections on this TCP port."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    wanted = {
        f"socket:[{fields[9]}]"
        for fields in lines
        if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port
    }
    return tuple(pid for pid in pids if wanted & _files(pid))


def _files(pid: int) -> set[str]:
    found = set()
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found.add(os.readlink(entry))
    return found


def memory_mib(pid: int) -> tuple[float, float]:
    """Resident memory of a process, and its share of it (PSS), in MiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return kib["Rss"] / 1024, kib["Pss"] / 1024


def loop_of(pid: int) -> str:
    """The event loop a Python process runs on, judged by what it has loaded."""
    return "uvloop" if "uvloop" in Path(f"/proc/{pid}/maps").read_text() else "asyncio"
