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
from aiohttp import web

from gateway.web.connection import Handle
from gateway.web.patience import Patience
from gateway.web.request import read_body
from gateway.web.response import Whole
from gateway.web.servers import Bounds, listen_raw

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
SOON_S, NEVER_S = 0.05, 3600.0


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


async def echoes(request: web.BaseRequest) -> Whole:
    return Whole(200, [], await read_body(request, 100))


async def refuses(handled: list[Exception], request: web.BaseRequest) -> Whole:
    try:
        return await echoes(request)
    except Exception as error:
        handled.append(error)
        return Whole(408, [])


@pytest.mark.parametrize("sent", [b"P", HEAD[:-2]])
async def test_a_head_that_does_not_come_in_time_is_refused(sent: bytes) -> None:
    handled: list[Exception] = []
    async with client_of(partial(refuses, handled), Bounds(request_s=SOON_S)) as (reader, writer):
        writer.write(sent[:1])
        writer.write(sent[1:])
        text = (await reader.read()).decode()
    assert text.startswith("HTTP/1.0 408 Request Timeout\r\n")
    assert '"code":"request_timeout"' in text
    assert handled == []


async def test_a_body_that_does_not_come_in_time_ends_its_connection() -> None:
    handled: list[Exception] = []
    async with client_of(partial(refuses, handled), Bounds(request_s=SOON_S)) as (reader, writer):
        writer.write(HEAD + b"half")
        text = (await reader.read()).decode()
    assert text.startswith("HTTP/1.1 408 Request Timeout\r\n")
    assert "Connection: close\r\n" in text
    assert [str(error) for error in handled] == [
        "The request did not arrive in time. Send it again."
    ]


async def test_an_answer_may_take_longer_than_its_request() -> None:
    began, passed = asyncio.Event(), asyncio.Event()

    async def ponders(request: web.BaseRequest) -> Whole:
        body = await read_body(request, 100)
        began.set()
        await passed.wait()
        return Whole(200, [], body)

    async with client_of(ponders, Bounds(request_s=SOON_S)) as (reader, writer):
        writer.write(HEAD)
        writer.write(b"0123456789")
        await began.wait()
        asyncio.get_running_loop().call_later(3 * SOON_S, passed.set)
        assert (await reader.readuntil(b"0123456789")).startswith(b"HTTP/1.1 200 OK\r\n")
        passed.clear()
        began.clear()
        writer.write(HEAD + b"9876543210")
        await began.wait()
        passed.set()
        assert (await reader.readuntil(b"9876543210")).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_request_in_parts_that_comes_in_time_is_answered() -> None:
    async with client_of(echoes, Bounds(request_s=NEVER_S)) as (reader, writer):
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
