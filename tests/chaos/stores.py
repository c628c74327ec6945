"""The world's stores and its upstream: real servers that are killed, frozen and started again.

The stores are started by the product's own launcher, over the data that the server before them left
behind. The upstream is the built-in stand-in; it is never killed, because its tally is evidence.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from gateway.adapters.embedded import RunningServer
from gateway.adapters.embedded.run_as import die_with_parent
from tests.chaos.gateways import environment
from tests.gateway.running_gateway import ROOT
from tests.gateway.standin_process import UPSTREAM_KEY


class Store:
    """A Redis or a Postgres. `launch` starts it over the data in its directory."""

    server: RunningServer

    def __init__(self, launch: Callable[[], Awaitable[RunningServer]]) -> None:
        self._launch = launch
        self._frozen: list[int] = []

    async def start(self) -> None:
        self.server = await self._launch()

    async def kill(self) -> None:
        """SIGKILL; a Postgres's sessions notice and end by themselves."""
        self.go_on()
        os.kill(self.server.pid, signal.SIGKILL)
        await self.server.stop()

    async def stop(self) -> None:
        self.go_on()
        await self.server.stop()

    def freeze(self) -> None:
        """The first process first, so that none begins that would not be stopped."""
        pid = self.server.pid
        os.kill(pid, signal.SIGSTOP)
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        self._frozen = [*map(int, children), pid]
        for child in self._frozen[:-1]:
            _tell(child, signal.SIGSTOP)

    def go_on(self) -> None:
        for pid in self._frozen:
            _tell(pid, signal.SIGCONT)
        self._frozen = []


class Upstream:
    """The stand-in as a process; `log` keeps what it says."""

    def __init__(self, log: Path) -> None:
        command = [sys.executable, "-m", "gateway", "mock-openai", "--listen", "127.0.0.1:0"]
        with log.open("wb") as said:
            self._process = subprocess.Popen(
                [*command, "--require-key", UPSTREAM_KEY],
                cwd=ROOT,
                env=environment(),
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                preexec_fn=partial(die_with_parent, signal.SIGTERM, os.getpid()),
            )
        assert self._process.stdout is not None
        ready, _, self.url = self._process.stdout.readline().strip().partition(" openai=")
        assert ready == "ready", f"the stand-in did not start: see {log}"
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        self.host, self.port = parts.hostname, parts.port or 80

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        self.go_on()
        self._process.kill()
        self._process.communicate()


def _tell(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
