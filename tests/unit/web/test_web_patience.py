"""Clients are waited for within bounds. A real server on loopback, and clients that are slow.

Every limit is short for the one test that waits for it to pass, and out of reach for the others:
what is waited for is always an answer or an end, never a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from gateway.web.connection import Connection, Handle, connection_of
from gateway.web.http_request import HttpRequest
from gateway.web.patience import Patience
from gateway.web.request import read_body
from gateway.web.response import Streamed, Whole
from gateway.web.servers import Bounds, listen_raw

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
SOON_S, NEVER_S = 0.05, 3600.0
PATIENT = Bounds(request_s=NEVER_S, unread_s=NEVER_S)
SLOW_REQUESTS = Bounds(request_s=SOON_S, unread_s=NEVER_S)
SLOW_READERS = Bounds(request_s=NEVER_S, unread_s=SOON_S)


@asynccontextmanager
async def client_of(
    handle: Handle, bounds: Bounds
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    listener = await listen_raw(handle, "127.0.0.1", 0, bounds)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        yield reader, writer
        writer.close()
    finally:
        await listener.close()


async def echoes(request: HttpRequest) -> Whole:
    return Whole(200, [], await read_body(request, 100))


async def refuses(handled: list[Exception], request: HttpRequest) -> Whole:
    try:
        return await echoes(request)
    except Exception as error:
        handled.append(error)
        return Whole(408, [])


@pytest.mark.parametrize("sent", [b"P", HEAD[:-2]])
async def test_a_head_that_does_not_come_in_time_is_refused(sent: bytes) -> None:
    handled: list[Exception] = []
    async with client_of(partial(refuses, handled), SLOW_REQUESTS) as (reader, writer):
        writer.write(sent[:1])
        writer.write(sent[1:])
        text = (await reader.read()).decode()
    assert text.startswith("HTTP/1.0 408 Request Timeout\r\n")
    assert '"code":"request_timeout"' in text
    assert handled == []


async def test_a_body_that_does_not_come_in_time_ends_its_connection() -> None:
    handled: list[Exception] = []
    async with client_of(partial(refuses, handled), SLOW_REQUESTS) as (reader, writer):
        writer.write(HEAD + b"half")
        text = (await reader.read()).decode()
    assert text.startswith("HTTP/1.1 408 Request Timeout\r\n")
    assert "Connection: close\r\n" in text
    assert [str(error) for error in handled] == [
        "The request did not arrive in time. Send it again."
    ]


async def test_an_answer_may_take_longer_than_its_request() -> None:
    began, passed = asyncio.Event(), asyncio.Event()

    async def ponders(request: HttpRequest) -> Whole:
        body = await read_body(request, 100)
        began.set()
        await passed.wait()
        return Whole(200, [], body)

    async with client_of(ponders, Bounds(request_s=0.5, unread_s=60)) as (reader, writer):
        writer.write(HEAD)
        writer.write(b"0123456789")
        await began.wait()
        asyncio.get_running_loop().call_later(1.0, passed.set)
        assert (await reader.readuntil(b"0123456789")).startswith(b"HTTP/1.1 200 OK\r\n")
        passed.clear()
        began.clear()
        writer.write(HEAD + b"9876543210")
        await began.wait()
        passed.set()
        assert (await reader.readuntil(b"9876543210")).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_request_in_parts_that_comes_in_time_is_answered() -> None:
    async with client_of(echoes, PATIENT) as (reader, writer):
        for _ in range(2):
            for byte in HEAD + b"0123456789":
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0)
            assert (await reader.readuntil(b"0123456789")).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_patience_ends_in_the_order_in_which_it_began() -> None:
    late: list[str] = []
    over = asyncio.Event()

    def note(whom: str) -> None:
        late.append(whom)
        if whom == "last":
            over.set()

    patience = Patience(SOON_S, note)
    patience.begin("came")
    patience.begin("first")
    patience.end("came")
    patience.end("never began")
    asyncio.get_running_loop().call_later(SOON_S / 2, patience.begin, "first")
    asyncio.get_running_loop().call_later(SOON_S / 2, patience.begin, "last")
    await over.wait()
    assert late == ["first", "last"]
    over.clear()
    patience.begin("last")
    await over.wait()


async def test_a_client_that_does_not_read_a_stream_counts_as_gone() -> None:
    gone: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    async def floods(request: HttpRequest) -> Streamed:
        stream = Streamed(request, 200, [])
        await stream.begin()
        try:
            while True:
                if not stream.push(b"x" * 100_000):
                    await stream.caught_up()
        except ConnectionResetError as error:
            gone.set_result(error)
            raise

    async with client_of(floods, SLOW_READERS) as (_, writer):
        writer.write(GET)
        assert isinstance(await gone, ConnectionResetError)


async def test_a_client_that_does_not_read_a_large_answer_counts_as_gone() -> None:
    gone = asyncio.Event()

    async def answers(request: HttpRequest) -> Whole:
        return Large(200, [], b"x" * 50_000_000)

    class Large(Whole):
        async def send(self, request: HttpRequest) -> None:
            try:
                await super().send(request)
            except ConnectionError:
                gone.set()
                raise

    async with client_of(answers, SLOW_READERS) as (_, writer):
        writer.write(GET)
        await gone.wait()


async def test_a_client_that_took_some_in_its_time_gets_more_time() -> None:
    body, kept = b"x" * 50_000_000, list[Connection]()

    async def answers(request: HttpRequest) -> Whole:
        kept.append(connection_of(request))
        return Whole(200, [], body)

    async with client_of(answers, PATIENT) as (reader, writer):
        writer.write(GET)
        await reader.readuntil(b"\r\n\r\n")
        assert kept[0].writing_paused
        await reader.readexactly(20_000_000)  # more than lies in the buffers between
        kept[0].left_unread()
        assert await reader.readexactly(30_000_000)
