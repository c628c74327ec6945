"""What the gateway's own processes have in common: a loop, and a way to be asked how they are.

A process that has a supervisor answers it on a unix socket: `/metrics`, `/readyz`,
`/configuration`. One that has none answers operators itself.
"""

from __future__ import annotations

import asyncio
import gc
import secrets
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import uvloop
from aiohttp import web

from gateway.adapters.embedded import socket_dir
from gateway.adapters.embedded.place import own_directory
from gateway.app.configured import Configured
from gateway.app.inside import inside_socket
from gateway.web.configuration import show_configuration, take_configuration
from gateway.web.ops import Checks, Readiness, ops_app
from gateway.web.servers import Listener, listen_app, listen_unix

T = TypeVar("T")


def run_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end on an event loop of its own. The one place that chooses the loop:
    uvloop, which takes a fifth off a proxied call (decision 22)."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def collect_seldom() -> None:
    """Look for garbage in cycles after 10,000 new objects instead of 700: a call leaves almost
    none, and looking for it took two hundredths of a proxy's time."""
    gc.set_threshold(10_000)


@dataclass(frozen=True, slots=True)
class SelfReport:
    """What a process says of itself: its metrics, its checks, and what is good to know besides."""

    render: Callable[[], bytes]
    ready: Checks
    about: Callable[[], Mapping[str, Any]] = dict


async def answer_supervisor(configured: Configured, process: str, report: SelfReport) -> Listener:
    """Answer on the inside socket until closed."""
    settings = configured.settings
    own_directory(socket_dir(settings.state_dir))  # embedded stores have made it, others have not
    app = _own_ops(configured, process, report)
    take_configuration(app, configured)
    return await listen_unix(app, inside_socket(settings, process))


async def answer_operators(configured: Configured, report: SelfReport) -> Listener:
    """The ops port of a process that has no supervisor."""
    address = configured.settings.listen.ops
    app = _own_ops(configured, "jobs", report)
    return await listen_app(app, address.host, address.port)


def _own_ops(configured: Configured, process: str, report: SelfReport) -> web.Application:
    """What it shows begins with a line that no other life of this process has."""
    life = f"# life {secrets.token_hex(8)}\n"

    async def rendered() -> str:
        return life + report.render().decode()

    async def alive() -> Mapping[str, str]:
        return {process: "ok"}

    async def ready() -> Readiness:
        return Readiness(await report.ready(), report.about())

    app = ops_app(rendered, alive, ready)
    show_configuration(app, configured.shown)
    return app
