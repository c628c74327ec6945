"""`serve`: the stores if they are embedded, a proxy worker, the jobs, and the ops port.

Starts them in the order of their needs, says `ready` once traffic is accepted, starts a child again
that ended by itself, and at the end stops them in the opposite order: the proxy finishes its calls,
then the jobs drain what it left, then the stores close.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
from msgspec import structs

from gateway.adapters.embedded import RunningServer
from gateway.adapters.metrics_merge import merge_metrics
from gateway.app.children import Child
from gateway.app.embedded import embedded_stores
from gateway.app.process import inside_socket, say_ready, stop_signal
from gateway.app.stores import prepare_ledger
from gateway.config import Settings
from gateway.ports.tasks import spawn
from gateway.web.ops import ops_app
from gateway.web.servers import listen_app

_PROXY_STOP_S, _JOBS_STOP_S = 30.0, 10.0
_START_AGAIN_S = 1.0
_ASK_S = 2.0
_WATCH_S = 0.5
_log = logging.getLogger("gateway.serve")

Welcome = Callable[[Mapping[str, str]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What the command line adds to the configuration.

    `stand_in`: answer calls with the built-in stand-in instead of the configured upstreams.
    `jobs`: run the jobs process here. `welcome` is called with the places once all is ready.
    """

    config: Path
    stand_in: bool
    jobs: bool
    welcome: Welcome | None


class StoreDied(Exception):
    """An embedded store ended by itself."""


async def serve(settings: Settings, options: ServeOptions) -> None:
    """Run until SIGTERM or SIGINT."""
    stop = stop_signal()
    async with AsyncExitStack() as stack:
        stand_in = spawn(_start_stand_in(stack, options), "stand-in", awaited=True)
        servers = await stack.enter_async_context(embedded_stores(settings))
        for name in await prepare_ledger(settings):
            _log.info("ledger: applied %s", name)
        stand_in_url = await stand_in
        family = _Family(settings, _child_arguments(options, stand_in_url))
        stack.push_async_callback(family.stop)
        places = await family.start(options.jobs)
        host, port = settings.listen.ops.host, settings.listen.ops.port
        ops = await listen_app(ops_app(family.metrics, family.alive, family.ready), host, port)
        stack.push_async_callback(ops.close)
        places = {
            "proxy": places["proxy"],
            "ops": ops.url(host),
            "admin": places.get("admin", "none"),
        }
        say_ready(**places)
        if options.welcome is not None:
            await options.welcome(
                {**places, **({"stand_in": stand_in_url} if stand_in_url else {})}
            )
        await _until_stopped(stop, servers)


async def _until_stopped(stop: asyncio.Event, servers: Sequence[RunningServer]) -> None:
    while not stop.is_set():
        for server in servers:
            if not server.is_alive():
                raise StoreDied(f"the embedded {server.engine} ended by itself: see {server.log}")
        try:
            async with asyncio.timeout(_WATCH_S):
                await stop.wait()
        except TimeoutError:
            continue


async def _start_stand_in(stack: AsyncExitStack, options: ServeOptions) -> str | None:
    if not options.stand_in:
        return None
    child = Child("stand-in", ("mock-openai", "--listen", "127.0.0.1:0"))
    stack.push_async_callback(child.stop, _JOBS_STOP_S)
    return (await child.start())["openai"]


def _child_arguments(options: ServeOptions, stand_in_url: str | None) -> tuple[str, ...]:
    stand_in = ("--stand-in", stand_in_url) if stand_in_url else ()
    return ("--config", str(options.config), *stand_in)


class _Family:
    """The children, and what they say of themselves taken together."""

    def __init__(self, settings: Settings, arguments: tuple[str, ...]) -> None:
        self._settings = settings
        self._arguments = arguments
        self._children: list[Child] = []
        self._keepers: list[asyncio.Task[None]] = []

    async def start(self, jobs: bool) -> dict[str, str]:
        """Start all; the places they listen on."""
        kinds = ("proxy", "jobs") if jobs else ("proxy",)
        self._children = [Child(kind, (f"{kind}-process", *self._arguments)) for kind in kinds]
        starts = await asyncio.gather(*(child.start() for child in self._children))
        for child, places in zip(self._children, starts, strict=True):
            for place in places.values():  # a child that starts again listens where it did
                child.arguments = (*child.arguments, "--port", place.rsplit(":", 1)[1])
            self._keepers.append(spawn(_keep(child), f"keep {child.name}"))
        return {name: place for places in starts for name, place in places.items()}

    async def stop(self) -> None:
        """The proxy first, so that the jobs can drain what its last calls settled."""
        for keeper in self._keepers:
            keeper.cancel()
        for child in self._children:
            await child.stop(_PROXY_STOP_S if child.name == "proxy" else _JOBS_STOP_S)

    async def metrics(self) -> str:
        """All children's metrics as one text; a child that does not answer is left out."""
        texts = await asyncio.gather(*(self._ask(child, "/metrics") for child in self._children))
        return merge_metrics(text for text in texts if text is not None)

    async def alive(self) -> Mapping[str, str]:
        """The supervisor itself answers, so it lives."""
        return {"supervisor": "ok"}

    async def ready(self) -> Mapping[str, str]:
        """Each child: ok, or that it does not answer or is not ready."""
        states = {}
        for child in self._children:
            states[child.name] = "ok" if await self._ask(child, "/readyz") else "not ready"
        return states

    async def _ask(self, child: Child, path: str) -> str | None:
        process = "proxy-0" if child.name == "proxy" else child.name
        connector = aiohttp.UnixConnector(str(inside_socket(self._settings, process)))
        try:
            async with (
                aiohttp.ClientSession(
                    connector=connector, timeout=aiohttp.ClientTimeout(total=_ASK_S)
                ) as session,
                session.get(f"http://{process}{path}") as response,
            ):
                return await response.text() if response.status == 200 else None
        except (aiohttp.ClientError, OSError):
            return None


async def _keep(child: Child) -> None:
    """Start a child again whenever it ends by itself, until cancelled."""
    while True:
        code = await child.ended()
        _log.error("the %s process ended with code %d and is started again", child.name, code)
        await asyncio.sleep(_START_AGAIN_S)
        await child.start()


def with_stand_in(settings: Settings, base_url: str) -> Settings:
    """The settings with every upstream replaced by the stand-in, which is told the user."""
    upstreams = {
        name: structs.replace(each, base_url=base_url, user_header="x-quota-user")
        for name, each in settings.upstreams.items()
    }
    return replace(settings, upstreams=upstreams)
