"""The ops port of a `serve`: what its processes say of themselves, taken together.

Each is asked on its inside socket, every time; nothing is asked in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING

import aiohttp
import msgspec

from gateway.app.arrangement import Arrangement
from gateway.app.process import inside_socket
from gateway.web.ops import ops_app
from gateway.web.servers import listen_app

if TYPE_CHECKING:
    from gateway.adapters.metrics_merge import MergedMetrics

_ASK_S = 2.0
_READY_S = 1.0  # a process that needs longer to say so is not ready


class Ops:
    """`is_stopping`: not ready any more, whatever the processes say."""

    def __init__(self, arrangement: Arrangement) -> None:
        self._settings = arrangement.settings
        self._names = arrangement.names
        self.is_stopping = False

    async def listen(self, stack: AsyncExitStack) -> str:
        """Answer operators until the stack is closed; where. AddressTaken."""
        address = self._settings.listen.ops
        app = ops_app(self.metrics, self.alive, self.ready)
        listener = await listen_app(app, address.host, address.port)
        stack.push_async_callback(listener.close)
        return listener.url(address.host)

    @cached_property
    def _merged(self) -> MergedMetrics:
        # Imported at the first scrape: at the start there is nothing to merge yet.
        from gateway.adapters.metrics_merge import MergedMetrics

        return MergedMetrics()

    async def metrics(self) -> str:
        """All processes' metrics as one text."""
        answers = await asyncio.gather(
            *(self._ask(name, "/metrics", _ASK_S) for name in self._names)
        )
        texts = [said if status == HTTPStatus.OK else None for status, said in answers]
        return self._merged.of(dict(zip(self._names, texts, strict=True)))

    async def alive(self) -> Mapping[str, str]:
        """The supervisor itself answers, so it lives."""
        return {"supervisor": "ok"}

    async def ready(self) -> Mapping[str, str]:
        """Each process: ok, or why not; one that does not answer in time is not."""
        answers = await asyncio.gather(
            *(self._ask(name, "/readyz", _READY_S) for name in self._names)
        )
        checks = {
            name: "ok" if status == HTTPStatus.OK else _reasons(said)
            for name, (status, said) in zip(self._names, answers, strict=True)
        }
        return checks | {"supervisor": "shutting down"} if self.is_stopping else checks

    async def _ask(self, name: str, path: str, within_s: float) -> tuple[int, str]:
        """Status and text; status 0, and why, when there was no answer."""
        connector = aiohttp.UnixConnector(str(inside_socket(self._settings, name)))
        try:
            async with (
                aiohttp.ClientSession(
                    connector=connector, timeout=aiohttp.ClientTimeout(total=within_s)
                ) as session,
                session.get(f"http://{name}{path}") as response,
            ):
                return response.status, await response.text()
        except TimeoutError:
            return 0, f"it did not answer within {within_s:g} s"
        except (aiohttp.ClientError, OSError):
            return 0, "it does not run, or not yet"


def _reasons(said: str) -> str:
    """What a process that is not ready says of its checks, in one line."""
    try:
        checks = msgspec.json.decode(said, type=_Said).checks
    except msgspec.MsgspecError:
        return said
    return "; ".join(f"{name}: {state}" for name, state in checks.items() if state != "ok")


class _Said(msgspec.Struct):
    checks: dict[str, str]
