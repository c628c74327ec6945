"""`serve`: the stores if they are embedded, the family of processes, and the ops port.

Says `ready` once traffic is accepted, and reloads on SIGHUP. At the end it is not ready any more,
and the processes stop before their stores do: the proxies finish their calls, then the jobs drain
what these left, then the stores close. Metrics can be read until then. Imports little at first, so
that the stores are starting while the rest is loaded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from importlib import import_module

from gateway.adapters.embedded import RunningServer
from gateway.app.arrangement import Arrangement
from gateway.app.embedded import embedded_stores
from gateway.app.family import Family
from gateway.app.places import noted_places
from gateway.app.signals import reload_signal, say_ready, stop_signal
from gateway.ports.tasks import spawn

_WATCH_S = 0.5
_log = logging.getLogger("gateway.serve")

Welcome = Callable[[Mapping[str, str]], Awaitable[None]]


class Died(Exception):
    """An embedded store, or the family process, ended by itself."""


async def serve(arrangement: Arrangement, family: Family, welcome: Welcome | None = None) -> None:
    """Run until SIGTERM or SIGINT. `welcome` is called with all places once all is ready."""
    stop, settings, places = stop_signal(), arrangement.settings, dict(arrangement.places)
    reload = reload_signal(stop)
    async with AsyncExitStack() as stack:
        loading = spawn(asyncio.to_thread(_load), "load")
        servers = await stack.enter_async_context(embedded_stores(settings))
        stack.push_async_callback(family.stop)
        await loading
        from gateway.app.ledger_schema import prepare_ledger
        from gateway.app.ops import Ops
        from gateway.app.reloading import Reloading
        from gateway.app.spreading import spread

        for name in await prepare_ledger(settings):
            _log.info("ledger: applied %s", name)
        await family.begin()
        reloading = Reloading(arrangement, partial(spread, arrangement, family))
        ops = Ops(arrangement, reloading.render)
        places["ops"] = await ops.listen(stack)
        stack.enter_context(noted_places(settings, places))
        reloads = reloading.start(reload)
        say_ready({name: places[name] for name in ("proxy", "ops", "admin")})
        if welcome is not None:
            await welcome(places)
        await _until_stopped(stop, servers, family)
        ops.is_stopping = True
        reloads.cancel()
        await family.stop()


def _load() -> None:
    """What is needed once the stores are up."""
    for name in ("gateway.app.ledger_schema", "gateway.app.ops", "gateway.app.spreading"):
        import_module(name)


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
