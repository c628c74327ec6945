"""Calls by either adapter of the Upstream port, and what a test wants to know of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import pytest

from gateway.adapters.upstream.connection import Connection
from gateway.adapters.upstream.direct import DirectUpstream
from gateway.adapters.upstream.origin import Origin
from gateway.adapters.upstream.session import SessionUpstream
from gateway.ports.tasks import spawn
from gateway.ports.upstream import (
    UpstreamAnswer,
    UpstreamBroke,
    UpstreamCall,
    UpstreamHead,
    UpstreamSilent,
    UpstreamUnreachable,
)

KEY = "sk-our-own-key-1234567890"
RID = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
BODY = b'{"model":"m"}'
TROUBLE = (UpstreamUnreachable, UpstreamBroke, UpstreamSilent)
AnyUpstream = DirectUpstream | SessionUpstream


class OpenTo(Protocol):
    """Makes an adapter for one origin named `openai`, closed in the end."""

    def __call__(
        self, url: str, idle_s: float = 30.0, api_key: str = KEY, **origin: Any
    ) -> AbstractAsyncContextManager[AnyUpstream]: ...


def opener(adapter: type[DirectUpstream] | type[SessionUpstream]) -> OpenTo:
    """For the fixture."""

    @asynccontextmanager
    async def open_to(
        url: str, idle_s: float = 30.0, api_key: str = KEY, **origin: Any
    ) -> AsyncIterator[AnyUpstream]:
        times: dict[str, Any] = {"connect_s": 2.0, "idle_s": idle_s}
        upstream = adapter({"openai": Origin(url, api_key, **times | origin)})
        try:
            yield upstream
        finally:
            await upstream.close()

    return open_to


@asynccontextmanager
async def direct(url: str) -> AsyncIterator[DirectUpstream]:
    """Our own adapter, where a test is about that one only."""
    async with opener(DirectUpstream)(url) as upstream:
        assert isinstance(upstream, DirectUpstream)
        yield upstream


async def send(upstream: AnyUpstream, body: bytes = BODY) -> UpstreamAnswer:
    """One call, as far as its head."""
    return await upstream.send(
        UpstreamCall("openai", "m", "/chat/completions", body, rid=RID, user_id="ada")
    )


async def asked(upstream: AnyUpstream, body: bytes = BODY) -> tuple[UpstreamHead, bytes]:
    """One call, its body read to the end."""
    answer = await send(upstream, body)
    try:
        return answer.head, await answer.read()
    finally:
        await answer.close()


async def trouble(open_to: OpenTo, url: str, **origin: Any) -> Exception:
    """What ends a call that is not answered well."""
    async with open_to(url, **origin) as upstream:
        with pytest.raises(TROUBLE) as caught:
            await asked(upstream)
    return caught.value


async def silence(open_to: OpenTo, url: str) -> Exception:
    """What ends a call that nobody answers. Our own clock is turned on until it has ended; that of
    aiohttp's client is real, and short."""
    async with open_to(url, idle_s=0.1) as upstream:
        call = spawn(asked(upstream), "call", awaited=True)
        while not call.done():
            await asyncio.sleep(0.01)
            if isinstance(upstream, DirectUpstream):
                upstream.wheel.advance()
        with pytest.raises(TROUBLE) as caught:
            await call
    return caught.value


def idle(upstream: AnyUpstream) -> int:
    """How many open connections wait for the next call."""
    if isinstance(upstream, DirectUpstream):
        (site,) = upstream.sites.values()
        return len(site._idle)
    connector = upstream._session.connector
    assert connector is not None
    links = [link for waiting in connector._conns.values() for link, _ in waiting]
    return sum(link.is_connected() for link in links)


def only_connection(upstream: DirectUpstream) -> Connection:
    """The one that is open."""
    (connection,) = upstream.wheel.watched
    assert isinstance(connection, Connection)
    return connection


async def until(condition: Callable[[], object]) -> None:
    """Wait for what must come; the test fails when it does not."""
    async with asyncio.timeout(10):
        while True:
            if condition():
                return
            await asyncio.sleep(0.001)
