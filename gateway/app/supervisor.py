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
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from gateway.adapters.embedded import RunningServer
from gateway.adapters.metrics_merge import merge_metrics
from gateway.app.children import Child, ChildFailed
from gateway.app.embedded import embedded_stores
from gateway.app.places import noted_places
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
        stand_in = await _start_stand_in(stack) if options.stand_in else None
        family = _Family(settings, options)
        stack.push_async_callback(family.stop)
        await family.start()
        servers = await stack.enter_async_context(embedded_stores(settings))
        # Pushed again: at the end the children must be gone before their stores are.
        stack.push_async_callback(family.stop)
        for name in await prepare_ledger(settings):
            _log.info("ledger: applied %s", name)
        stand_in_url = (await stand_in.ready())["openai"] if stand_in else None
        places = await family.ready_places(stand_in_url or "")
        host, port = settings.listen.ops.host, settings.listen.ops.port
        ops = await listen_app(ops_app(family.metrics, family.alive, family.ready), host, port)
        stack.push_async_callback(ops.close)
        places = {
            "proxy": places["proxy"],
            "ops": ops.url(host),
            "admin": places.get("admin", "none"),
        }
        everywhere = {**places, **({"stand_in": stand_in_url} if stand_in_url else {})}
        stack.enter_context(noted_places(settings, everywhere))
        say_ready(**places)
        if options.welcome is not None:
            await options.welcome(everywhere)
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


async def _start_stand_in(stack: AsyncExitStack) -> Child:
    child = Child("stand-in", ("mock-openai", "--listen", "127.0.0.1:0"), waits_for_word=False)
    stack.push_async_callback(child.stop, _JOBS_STOP_S)
    await child.start()
    return child


class _Family:
    """The children, and what they say of themselves taken together."""

    def __init__(self, settings: Settings, options: ServeOptions) -> None:
        self._settings = settings
        kinds = ("proxy", "jobs") if options.jobs else ("proxy",)
        self._children = [
            Child(kind, (f"{kind}-process", "--config", str(options.config))) for kind in kinds
        ]
        self._keepers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start all; they load while the stores come up."""
        for child in self._children:
            await child.start()

    async def ready_places(self, stand_in_url: str) -> dict[str, str]:
        """Let all go on, and keep them going; the places they listen on."""
        readies = await asyncio.gather(*(child.ready(stand_in_url) for child in self._children))
        for child, places in zip(self._children, readies, strict=True):
            for place in places.values():  # a child that starts again listens where it did
                child.arguments = (*child.arguments, "--port", place.rsplit(":", 1)[1])
            self._keepers.append(spawn(_keep(child, stand_in_url), f"keep {child.name}"))
        return {name: place for places in readies for name, place in places.items()}

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


async def _keep(child: Child, stand_in_url: str) -> None:
    """Start a child again whenever it ends by itself, until cancelled."""
    while True:
        code = await child.ended()
        _log.error("the %s process ended with code %d and is started again", child.name, code)
        await asyncio.sleep(_START_AGAIN_S)
        try:
            await child.start()
            await child.ready(stand_in_url)
        except ChildFailed as error:
            _log.error("%s", error)
