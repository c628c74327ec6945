"""How our own adapter keeps connections, counts them, and measures silence, by a clock in hand."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Callable
from typing import Any

import pytest

from gateway.adapters.upstream import site
from gateway.adapters.upstream.connection import Connection
from gateway.adapters.upstream.dialing import Dialer
from gateway.adapters.upstream.direct import DirectUpstream
from gateway.adapters.upstream.origin import KEEP_S, Origin
from gateway.adapters.upstream.wheel import TURN_S, Wheel, turns
from gateway.ports.tasks import spawn
from gateway.ports.upstream import UpstreamBroke, UpstreamCall, UpstreamSilent, UpstreamUnreachable
from tests.contract.upstream_calls import (
    BODY,
    RID,
    asked,
    direct,
    idle,
    only_connection,
    send,
    until,
)
from tests.contract.upstream_server import Reply, Server, chunked, http, serving
from tests.fakes.upstream import chunks


async def opened(server: Server, idle_s: float = 30.0) -> DirectUpstream:
    """An adapter whose wheel a test turns."""
    upstream = DirectUpstream({"openai": Origin(server.url, "", 2.0, idle_s)})
    assert upstream.wheel._timer is not None
    upstream.wheel._timer.cancel()
    return upstream


def advance(wheel: Wheel, count: int) -> None:
    for _ in range(count):
        wheel.advance()


def test_so_many_turns_are_never_less_than_the_time() -> None:
    for seconds in (0.1, 1.0, 1.5, 30.0, 120.0):
        assert (turns(seconds) - 1) * TURN_S >= seconds
        assert turns(seconds) - 1 == math.ceil(seconds / TURN_S)


async def test_the_wheel_turns_by_itself_until_it_is_stopped() -> None:
    loop = asyncio.get_running_loop()
    wheel = Wheel()
    began_s = loop.time()
    wheel.start()
    await until(lambda: wheel.turn == 1)
    assert loop.time() - began_s >= TURN_S
    await wheel.stop()
    assert wheel._timer is not None
    assert wheel._timer.cancelled()


@pytest.mark.parametrize("raw", [b"", b"HTTP/1.1 200 OK\r\n", chunked(b"data: 1\n\n")], ids=len)
async def test_silence_is_noticed_at_its_turn_and_not_before(raw: bytes) -> None:
    async with serving(Reply(raw, "hang")).running() as server:
        upstream = await opened(server, idle_s=3)
        call = spawn(asked(upstream), "call", awaited=True)
        await until(lambda: server.requests)
        answer = only_connection(upstream)._answer
        assert answer is not None
        await until(lambda: answer._size == len(raw))
        advance(upstream.wheel, 3)
        await asyncio.sleep(0)
        assert not call.done()
        advance(upstream.wheel, 1)
        with pytest.raises(UpstreamSilent, match="3 s"):
            await call
        await upstream.close()


async def test_whatever_comes_ends_the_silence() -> None:
    async with serving(Reply(chunked(b"0"))).running() as server:
        upstream = await opened(server, idle_s=3)
        answer = await send(upstream)
        pieces = chunks(answer)
        for text in (b"0", b"1", b"2", b"3"):
            assert await anext(pieces) == text
            advance(upstream.wheel, 3)
            server.writers[0].write(b"1\r\n%d\r\n" % (int(text) + 1))
        assert await anext(pieces) == b"4"
        await answer.close()
        await upstream.close()


async def test_a_connection_waits_half_a_minute_for_its_next_call() -> None:
    async with serving(http(), http(), http()).running() as server:
        upstream = await opened(server)
        await asked(upstream)
        advance(upstream.wheel, KEEP_S)
        assert idle(upstream) == 1
        await asked(upstream)
        advance(upstream.wheel, KEEP_S + 1)
        assert idle(upstream) == 0
        await until(lambda: server.closed == 1)
        await asked(upstream)
        assert server.connections == 2
        await upstream.close()


async def test_the_connection_freed_last_is_taken_first() -> None:
    replies = (Reply(chunked(b"a")), Reply(chunked(b"b")), Reply(http()), Reply(http()))
    async with serving(*replies).running() as server:
        upstream = await opened(server)
        answers = [await send(upstream) for _ in range(2)]
        for number in (0, 1):
            server.writers[number].write(b"0\r\n\r\n")
            await answers[number].read()
        advance(upstream.wheel, KEEP_S)
        await asked(upstream)
        await asked(upstream)
        advance(upstream.wheel, 1)  # the one that was freed first has served neither
        assert idle(upstream) == 1
        assert server.connections == 2
        await until(lambda: server.closed == 1)
        await upstream.close()


async def test_no_more_wait_than_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "IDLE_MAX", 3)
    async with serving(*(http() for _ in range(8))).running() as server:
        upstream = await opened(server)
        await asyncio.gather(*(asked(upstream) for _ in range(8)))
        assert idle(upstream) == 3
        await until(lambda: server.closed == server.connections - 3)
        await upstream.close()


async def test_no_more_are_open_than_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "CONNECTIONS_MAX", 2)
    async with serving(chunked(b"a"), chunked(b"b"), http()).running() as server:
        upstream = await opened(server)
        answers = [await send(upstream) for _ in range(2)]
        with pytest.raises(UpstreamUnreachable, match="2 connections"):
            await send(upstream)
        await answers[0].close()
        await until(lambda: server.closed == 1)
        await asked(upstream)
        await answers[1].close()
        await upstream.close()


async def test_a_close_that_the_loop_has_not_read_yet_is_seen_before_a_call_is_written() -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        upstream = DirectUpstream({"openai": Origin(url, "", 2.0, 30.0)})
        for _ in range(2):
            call = spawn(asked(upstream), "call", awaited=True)
            serving_side, _ = await loop.sock_accept(listening)
            with serving_side:
                await loop.sock_recv(serving_side, 1000)
                await loop.sock_sendall(serving_side, http())
                assert (await call)[1] == b"{}"
                assert idle(upstream) == 1
            upstream.wheel.advance()  # closed, and the loop had no time to look
        await upstream.close()


async def test_an_id_that_would_break_a_line_is_not_sent() -> None:
    async with serving(http()).running() as server:
        origin = Origin(server.url, "", 2.0, 30.0, user_header="X-User")
        upstream = DirectUpstream({"openai": origin})
        for user_id in ("a\r\nX: b", "a\nb", "a\0b"):
            call = UpstreamCall("openai", "m", "/chat/completions", BODY, RID, user_id)
            with pytest.raises(UpstreamUnreachable, match="header"):
                await upstream.send(call)
        await upstream.close()
    assert server.requests == []


async def test_one_lookup_serves_all_calls_that_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[object] = []

    def count(*asked_for: object, **kinds: object) -> object:
        looked_up.append(asked_for)
        return getaddrinfo(*asked_for, **kinds)

    getaddrinfo: Any = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", count)
    async with serving(*(http() for _ in range(8))).running() as server:
        looked_up.clear()
        async with direct(server.url) as upstream:
            await asyncio.gather(*(asked(upstream) for _ in range(8)))
    is_asyncio = isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop)
    assert len(looked_up) == (1 if is_asyncio else 0)  # uvloop asks the system by itself


async def test_a_connection_that_is_closed_at_once_leaves_no_call_waiting() -> None:
    def turn_away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(turn_away, "127.0.0.1", 0)
    async with (
        server,
        direct(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as upstream,
        asyncio.timeout(10),
    ):
        for _ in range(50):
            with pytest.raises((UpstreamBroke, UpstreamUnreachable)):
                await asked(upstream)


async def test_a_connection_lost_before_its_call_is_out_of_reach(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened_by = Dialer.open

    async def open_and_lose(self: Dialer, protocol: Callable[[], asyncio.Protocol]) -> None:
        await opened_by(self, protocol)
        connection = protocol()
        assert isinstance(connection, Connection)
        connection._transport.abort()
        await asyncio.sleep(0.01)

    monkeypatch.setattr(Dialer, "open", open_and_lose)
    async with serving().running() as server, direct(server.url) as upstream:
        with pytest.raises(UpstreamUnreachable, match="at once"):
            await asked(upstream)
