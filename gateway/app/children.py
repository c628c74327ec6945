"""Child processes of the supervisor: started, heard when ready, ended in bounds.

A child is this same program with another command. It dies with the supervisor, however that ends,
and has a session of its own, so a Ctrl-C at the terminal reaches only the supervisor.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from functools import partial

from gateway.adapters.embedded.run_as import die_with_parent

_READY_S = 60.0
_log = logging.getLogger("gateway.serve")


class ChildFailed(Exception):
    """A child ended before it was ready; what it said stands above, on standard error."""


class Child:
    """One child process. `arguments` follow the program's name.

    It loads what it needs and then waits until it is told to go on, so that processes and stores
    can start side by side.
    """

    def __init__(self, name: str, arguments: tuple[str, ...]) -> None:
        self.name = name
        self.arguments = arguments
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the process; it is not ready yet."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gateway",
            *self.arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
            preexec_fn=partial(die_with_parent, signal.SIGKILL, os.getpid()),
        )

    async def ready(self, word: str) -> dict[str, str]:
        """Tell it to go on, with one word of news, and wait until it is ready.

        The places it names in its `ready` line. ChildFailed if it ends instead.
        """
        process = self._process
        if process is None or process.stdout is None or process.stdin is None:
            raise AssertionError(f"the {self.name} process was never started")
        try:
            async with asyncio.timeout(_READY_S):
                process.stdin.write(f"{word}\n".encode())
                await process.stdin.drain()
                line = (await process.stdout.readline()).decode().split()
        except ConnectionError:
            line = []
        except TimeoutError:
            raise ChildFailed(f"the {self.name} process was not ready in {_READY_S:g} s") from None
        if not line or line[0] != "ready":
            raise ChildFailed(f"the {self.name} process ended before it was ready")
        return dict(part.split("=", 1) for part in line[1:])

    async def ended(self) -> int:
        """Wait for its end; the exit code, negative for a signal."""
        if self._process is None:
            raise AssertionError(f"{self.name} was never started")
        return await self._process.wait()

    async def stop(self, wait_s: float) -> None:
        """SIGTERM, then SIGKILL after `wait_s`. Nothing when it has ended already."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(wait_s):
                await process.wait()
        except TimeoutError:
            _log.warning("the %s process did not stop in %g s: killed", self.name, wait_s)
            process.kill()
            await process.wait()
