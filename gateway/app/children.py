"""Child processes of the supervisor: started, heard when ready, ended in bounds.

A child is this same program with another command. It dies with the supervisor, however that ends,
and has a session of its own, so a Ctrl-C at the terminal reaches only the supervisor.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from functools import partial

from gateway.adapters.embedded.run_as import die_with_parent

_READY_S = 60.0


class ChildFailed(Exception):
    """A child ended before it was ready; what it said stands above, on standard error."""


class Child:
    """One child process. `arguments` follow the program's name."""

    def __init__(self, name: str, arguments: tuple[str, ...]) -> None:
        self.name = name
        self.arguments = arguments
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> dict[str, str]:
        """Start it; the places it names in its `ready` line. ChildFailed if it ends instead."""
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gateway",
            *self.arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
            preexec_fn=partial(die_with_parent, signal.SIGKILL, os.getpid()),
        )
        if process.stdout is None:
            raise AssertionError("standard output was asked for")
        try:
            async with asyncio.timeout(_READY_S):
                line = (await process.stdout.readline()).decode().split()
        except TimeoutError:
            raise ChildFailed(f"the {self.name} process was not ready in {_READY_S:g} s") from None
        if not line or line[0] != "ready":
            raise ChildFailed(f"the {self.name} process ended before it was ready")
        return dict(word.split("=", 1) for word in line[1:])

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
            process.kill()
            await process.wait()
