"""The ops port of a `serve`: what its processes say of themselves, taken together.

Each is asked on its inside socket, every time; nothing is asked in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import cached_property
from typing import TYPE_CHECKING

import aiohttp

from gateway.app.arrangement import Arrangement
from gateway.app.process import inside_socket
from gateway.web.ops import ops_app
from gateway.web.servers import listen_app

if TYPE_CHECKING:
    from gateway.adapters.metrics_merge import MergedMetrics

_ASK_S = 2.0


async def listen_ops(arrangement: Arrangement, stack: AsyncExitStack) -> str:
    """Answer operators until the stack is closed; where. AddressTaken."""
    ops, address = _Ops(arrangement), arrangement.settings.listen.ops
    app = ops_app(ops.metrics, ops.alive, ops.ready)
    listener = await listen_app(app, address.host, address.port)
    stack.push_async_callback(listener.close)
    return listener.url(address.host)


class _Ops:
    def __init__(self, arrangement: Arrangement) -> None:
        self._settings = arrangement.settings
        self._names = arrangement.names

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
