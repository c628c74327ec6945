"""A port has so many connections and no more. A real server on loopback."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.web.crowd import Crowd
from gateway.web.http_request import HttpRequest
from gateway.web.response import Whole
from gateway.web.servers import Bounds, Listener, listen_raw

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def greets(_: HttpRequest) -> Whole:
    return Whole(200, [], b"hello")


@asynccontextmanager
async def listening(connections_max: int, per_peer_max: int | None) -> AsyncIterator[Listener]:
    bounds = Bounds(60, 60, connections_max, per_peer_max)
    listener = await listen_raw(greets, "127.0.0.1", 0, bounds)
    try:
        yield listener
    finally:
        await listener.close()


async def come(listener: Listener, source: str = "127.0.0.1") -> Client:
    return await asyncio.open_connection("127.0.0.1", listener.port, local_addr=(source, 0))


async def is_answered(client: Client) -> bool:
    reader, writer = client
    writer.write(GET)
    text = await reader.readuntil(b"\r\n\r\n")
    return text.startswith(b"HTTP/1.1 200 OK\r\n") and await reader.readexactly(5) == b"hello"


async def turned_away(client: Client) -> None:
    reader, writer = client
    text = (await reader.read()).decode()
    assert text.startswith("HTTP/1.1 503 Service Unavailable\r\n")
    assert "\r\nRetry-After: 1\r\n" in text
    assert "\r\nConnection: close\r\n" in text
    assert '"code":"too_many_connections"' in text
    writer.close()


@pytest.mark.parametrize(("connections_max", "per_peer_max"), [(2, None), (9, 2)])
async def test_one_too_many_is_told_so_and_costs_the_others_nothing(
    connections_max: int, per_peer_max: int | None
) -> None:
    async with listening(connections_max, per_peer_max) as listener:
        inside = [await come(listener), await come(listener)]
        assert [await is_answered(each) for each in inside] == [True, True]
        for _ in range(3):
            await turned_away(await come(listener))
        if per_peer_max is not None:
            other = await come(listener, "127.0.0.2")
            assert await is_answered(other)
            other[1].close()
        assert [await is_answered(each) for each in inside] == [True, True]
        for _, writer in inside:
            writer.close()


async def test_who_leaves_makes_room() -> None:
    async with listening(1, None) as listener:
        for _ in range(3):
            reader, writer = await come(listener)
            assert await is_answered((reader, writer))
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            await reader.read()  # to its end, which the server has seen before this client
            writer.close()


def test_a_flood_is_told_of_once_until_there_is_room_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    crowd = Crowd(2, None)
    assert [crowd.enter(peer) for peer in ("a", "b", "c", "c", "c")] == [True, True] + [False] * 3
    assert caplog.messages == ["too many connections: 2, c has 0"]
    crowd.leave("a")
    assert [crowd.enter("c"), crowd.enter("a")] == [True, False]
    assert len(caplog.messages) == 2


def test_an_address_that_left_is_forgotten() -> None:
    crowd = Crowd(10, 1)
    for number in range(100):
        assert crowd.enter(str(number))
        crowd.leave(str(number))
    assert not crowd._of_peer
