"""`serve`: the stores if they are embedded, the family of processes, and the ops port.

Says `ready` once traffic is accepted. At the end the processes stop before their stores do: the
proxy finishes its calls, then the jobs drain what it left, then the stores close.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import cached_property
from typing import TYPE_CHECKING

import aiohttp

from gateway.adapters.embedded import RunningServer
from gateway.app.arrangement import Arrangement
from gateway.app.embedded import embedded_stores
from gateway.app.family import Family
from gateway.app.ledger_schema import prepare_ledger
from gateway.app.places import noted_places
from gateway.app.process import inside_socket, say_ready, stop_signal
from gateway.config import Settings
from gateway.web.ops import ops_app
from gateway.web.servers import listen_app

if TYPE_CHECKING:
    from gateway.adapters.metrics_merge import MergedMetrics

_ASK_S = 2.0
_WATCH_S = 0.5
_log = logging.getLogger("gateway.serve")

Welcome = Callable[[Mapping[str, str]], Awaitable[None]]


class Died(Exception):
    """An embedded store, or the family process, ended by itself."""


async def serve(arrangement: Arrangement, family: Family, welcome: Welcome | None = None) -> None:
    """Run until SIGTERM or SIGINT. `welcome` is called with all places once all is ready."""
    stop, settings, places = stop_signal(), arrangement.settings, dict(arrangement.places)
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(embedded_stores(settings))
        stack.push_async_callback(family.stop)
        for name in await prepare_ledger(settings):
            _log.info("ledger: applied %s", name)
        await family.begin()
        ops = _Ops(settings, arrangement.names)
        address = settings.listen.ops
        listener = await listen_app(
            ops_app(ops.metrics, ops.alive, ops.ready), address.host, address.port
        )
        stack.push_async_callback(listener.close)
        places["ops"] = listener.url(address.host)
        stack.enter_context(noted_places(settings, places))
        say_ready({name: places[name] for name in ("proxy", "ops", "admin")})
        if welcome is not None:
            await welcome(places)
        await _until_stopped(stop, servers, family)


async def _until_stopped(
    stop: asyncio.Event, servers: Sequence[RunningServer], family: Family
) -> None:
    while not stop.is_set():
        for server in servers:
            if not server.is_alive():
                raise Died(f"the embedded {server.engine} ended by itself: see {server.log}")
        if not family.is_alive():
            raise Died("the process that starts the workers ended by itself, and they with it")
        try:
            async with asyncio.timeout(_WATCH_S):
                await stop.wait()
        except TimeoutError:
            continue


class _Ops:
    """What the ops port answers: what the processes say of themselves, taken together."""

    def __init__(self, settings: Settings, names: Sequence[str]) -> None:
        self._settings = settings
        self._names = names

    @cached_property
    def _merged(self) -> MergedMetrics:
        # Imported at the first scrape: at the start there is nothing to merge yet.
        from gateway.adapters.metrics_merge import MergedMetrics

        return MergedMetrics()

    async def metrics(self) -> str:
        """All processes' metrics as one text."""
        texts = await asyncio.gather(*(self._ask(name, "/metrics") for name in self._names))
        return self._merged.of(dict(zip(self._names, texts, strict=True)))

    async def alive(self) -> Mapping[str, str]:
        """The supervisor itself answers, so it lives."""
        return {"supervisor": "ok"}

    async def ready(self) -> Mapping[str, str]:
        """Each process: ok, or not ready, which is also one that does not answer."""
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
