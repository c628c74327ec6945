"""`serve`: the stores if they are embedded, a proxy worker, the jobs, and the ops port.

Says `ready` once traffic is accepted. At the end the processes stop before their stores do: the
proxy finishes its calls, then the jobs drain what it left, then the stores close.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack

import aiohttp

from gateway.adapters.embedded import RunningServer
from gateway.app.embedded import embedded_stores
from gateway.app.family import Family
from gateway.app.ledger_schema import prepare_ledger
from gateway.app.places import noted_places
from gateway.app.process import inside_socket, say_ready, stop_signal
from gateway.app.stand_in import running_stand_in
from gateway.config import Settings
from gateway.web.ops import ops_app
from gateway.web.servers import listen_app

_ASK_S = 2.0
_WATCH_S = 0.5
_log = logging.getLogger("gateway.serve")

Welcome = Callable[[Mapping[str, str]], Awaitable[None]]


class StoreDied(Exception):
    """An embedded store ended by itself."""


async def serve(
    settings: Settings, family: Family, stand_in: bool, welcome: Welcome | None
) -> None:
    """Run until SIGTERM or SIGINT, with a family that was started already.

    `stand_in`: the built-in stand-in, in this process, answers instead of the configured upstreams.
    `welcome` is called with the places once all is ready.
    """
    stop = stop_signal()
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(embedded_stores(settings))
        stack.push_async_callback(family.stop)
        for name in await prepare_ledger(settings):
            _log.info("ledger: applied %s", name)
        places = {"admin": "none"}
        if stand_in:
            places["stand_in"] = await stack.enter_async_context(running_stand_in())
        places |= await family.places(places.get("stand_in", ""))
        ops = _Ops(settings, family)
        address = settings.listen.ops
        listener = await listen_app(
            ops_app(ops.metrics, ops.alive, ops.ready), address.host, address.port
        )
        stack.push_async_callback(listener.close)
        places["ops"] = listener.url(address.host)
        stack.enter_context(noted_places(settings, places))
        say_ready(**{name: places[name] for name in ("proxy", "ops", "admin")})
        if welcome is not None:
            await welcome(places)
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


class _Ops:
    """What the ops port answers: what the children say of themselves, taken together."""

    def __init__(self, settings: Settings, family: Family) -> None:
        self._settings = settings
        self._names = [child.name for child in family.members]

    async def metrics(self) -> str:
        """All children's metrics as one text; a child that does not answer is left out."""
        # Imported at the first scrape: at the start there is nothing to merge yet.
        from gateway.adapters.metrics_merge import merge_metrics

        texts = await asyncio.gather(*(self._ask(name, "/metrics") for name in self._names))
        return merge_metrics(text for text in texts if text is not None)

    async def alive(self) -> Mapping[str, str]:
        """The supervisor itself answers, so it lives."""
        return {"supervisor": "ok"}

    async def ready(self) -> Mapping[str, str]:
        """Each child: ok, or not ready, which is also a child that does not answer."""
        answers = await asyncio.gather(*(self._ask(name, "/readyz") for name in self._names))
        return {
            name: "ok" if answer is not None else "not ready"
            for name, answer in zip(self._names, answers, strict=True)
        }

    async def _ask(self, name: str, path: str) -> str | None:
        connector = aiohttp.UnixConnector(str(inside_socket(self._settings, name)))
        try:
            async with (
                aiohttp.ClientSession(
                    connector=connector, timeout=aiohttp.ClientTimeout(total=_ASK_S)
                ) as session,
                session.get(f"http://{name}{path}") as response,
            ):
                return await response.text() if response.status == 200 else None
        except (aiohttp.ClientError, OSError):
            return None
