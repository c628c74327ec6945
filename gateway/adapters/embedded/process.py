"""One server process: started so that it dies with us, watched until ready, stopped in bounds.

The child gets a session of its own, so a Ctrl-C at the terminal reaches only its owner, and asks
the kernel for a signal at its parent's death, so no ending of the parent leaves it behind. That
signal is bound to the thread that forks: start servers from the main thread. On systems without
prctl (macOS) only `stop` ends a server. It knows nothing of Redis or Postgres.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
import warnings
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from signal import SIGKILL, Signals

from gateway.adapters.embedded.engines import server_environment
from gateway.adapters.embedded.errors import EmbeddedError, with_log
from gateway.adapters.embedded.place import Claim
from gateway.adapters.embedded.run_as import die_with_parent, stay
from gateway.adapters.embedded.waiting import comes_true

_KILL_S = 10.0  # after SIGKILL only the kernel works: seconds mean a disk that does not answer
_READY_S = 60.0  # a large append-only file or a crash recovery is read before the first answer


@dataclass(frozen=True, slots=True)
class Launch:
    """A command, its directory and log, and how it is bound to us."""

    argv: tuple[str, ...]
    cwd: Path
    log: Path
    death_signal: Signals
    lock_fd: int
    become: Callable[[], None] = stay


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that answered. Whoever holds this owns it and calls `stop` once done with it."""

    url: str
    engine: str
    pid: int
    log: Path
    child: subprocess.Popen[bytes]
    claim: Claim
    ending: tuple[tuple[Signals, float], ...]

    def is_alive(self) -> bool:
        """False once the process has ended, by whatever cause; `stop` then frees the data."""
        return self.child.poll() is None

    async def stop(self) -> None:
        """End the server, gracefully as long as that is bounded, and free its data.

        Returns when the process is gone; a second call does nothing.
        """
        try:
            await end(self.child, self.ending)
        finally:
            self.claim.release()


def launch(command: Launch) -> subprocess.Popen[bytes]:
    """Start the process with only the environment that a server needs.

    Raises EmbeddedError when it cannot be started.
    """
    if threading.current_thread() is not threading.main_thread():
        raise EmbeddedError("start embedded stores from the main thread: they die with theirs")
    with suppress(FileNotFoundError):  # the log of the run before: a crash explains itself there
        command.log.replace(f"{command.log}.before")
    with command.log.open("wb") as log, warnings.catch_warnings():
        # Python 3.12 warns of any code between fork and exec beside other threads; ours makes
        # system calls only and takes no lock.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return subprocess.Popen(
                command.argv,
                cwd=command.cwd,
                env=server_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(command.lock_fd,),
                start_new_session=True,
                preexec_fn=partial(_in_child, command, os.getpid()),
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise EmbeddedError(f"cannot start {command.argv[0]}: {error}") from error


async def until_ready(
    child: subprocess.Popen[bytes], log: Path, ready: Callable[[], Awaitable[bool]], poll_s: float
) -> None:
    """Ask `ready` until it says yes.

    Raises EmbeddedError with the end of the log if the process ends or stays silent too long.
    """
    name = f"the embedded {log.parent.name}"
    try:
        async with asyncio.timeout(_READY_S):
            while not await ready():
                if child.poll() is not None:
                    raise with_log(f"{name} ended while starting (code {child.returncode})", log)
                await asyncio.sleep(poll_s)
    except TimeoutError:
        raise with_log(f"{name} did not get ready in {_READY_S:.0f} s", log) from None


async def exited(child: subprocess.Popen[bytes], wait_s: float) -> bool:
    """Wait until the process has ended; False if it has not within `wait_s`."""
    return await comes_true(lambda: child.poll() is not None, wait_s)


async def end(
    child: subprocess.Popen[bytes], ending: tuple[tuple[Signals, float], ...] = ()
) -> None:
    """Send each signal of `ending` and wait its seconds, then kill. Returns at the first success.

    Raises EmbeddedError if even SIGKILL does not end it.
    """
    for number, wait_s in (*ending, (SIGKILL, _KILL_S)):
        if child.poll() is not None:
            return
        child.send_signal(number)
        if await exited(child, wait_s):
            return
    raise EmbeddedError(f"process {child.pid} does not end, not even by SIGKILL")


def _in_child(command: Launch, parent: int) -> None:
    command.become()
    die_with_parent(command.death_signal, parent)
