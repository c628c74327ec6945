"""Answers byte by byte: framing by version and method, one write a piece, no half answer as whole.

A real server on loopback; the client is a bare socket, so that nothing is put right on the way.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from gateway.web.connection import connection_of
from gateway.web.http_request import HttpRequest
from gateway.web.request import read_body
from gateway.web.response import Response, Streamed, Whole
from gateway.web.servers import Bounds, listen_raw

TYPE = ("Content-Type", "text/plain")
Handle = Callable[[HttpRequest], Awaitable[Response]]


@asynccontextmanager
async def server(handle: Handle) -> AsyncIterator[int]:
    listener = await listen_raw(handle, "127.0.0.1", 0, Bounds(request_s=60, unread_s=60))
    try:
        yield listener.port
    finally:
        await listener.close()


async def answered(handle: Handle, *requests: str) -> str:
    """All bytes that come back until the server closes; the last request asks for that."""
    async with server(handle) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write("".join(requests).encode())
        text = (await reader.read()).decode()
        writer.close()
        return re.sub(r"Date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n", "Date\r\n", text)


def asking(method: str = "GET", version: str = "1.1", connection: str = "close") -> str:
    return f"{method} / HTTP/{version}\r\nHost: x\r\nConnection: {connection}\r\n\r\n"


async def whole(_: HttpRequest) -> Whole:
    return Whole(200, [TYPE], b"hello")


async def streamed(request: HttpRequest) -> Streamed:
    stream = Streamed(request, 200, [TYPE])
    await stream.begin()
    for piece in (b"one", b"", b"and two"):
        stream.push(piece)
    await stream.end()
    return stream


WHOLE_HEAD = "HTTP/1.1 200 OK\r\nDate\r\nContent-Type: text/plain\r\n"


async def test_a_whole_answer_has_its_length() -> None:
    text = await answered(whole, asking(connection="keep-alive"), asking())
    assert text == (
        f"{WHOLE_HEAD}Content-Length: 5\r\n\r\nhello"
        f"{WHOLE_HEAD}Connection: close\r\nContent-Length: 5\r\n\r\nhello"
    )


async def test_head_has_the_length_and_not_the_body() -> None:
    text = await answered(whole, asking("HEAD"))
    assert text == f"{WHOLE_HEAD}Connection: close\r\nContent-Length: 5\r\n\r\n"


async def test_an_old_client_is_told_that_its_connection_is_kept() -> None:
    text = await answered(whole, asking(version="1.0", connection="keep-alive"), asking())
    assert text.startswith(
        "HTTP/1.0 200 OK\r\nDate\r\nContent-Type: text/plain\r\nConnection: keep-alive\r\n"
    )
    assert text.count("hello") == 2


async def test_an_answer_without_content_has_no_length() -> None:
    async def nothing(_: HttpRequest) -> Whole:
        return Whole(204, [])

    assert await answered(nothing, asking()) == (
        "HTTP/1.1 204 No Content\r\nDate\r\nConnection: close\r\n\r\n"
    )


async def test_a_status_without_a_name_is_written_all_the_same() -> None:
    async def odd(_: HttpRequest) -> Whole:
        return Whole(299, [], b"x")

    assert (await answered(odd, asking())).startswith("HTTP/1.1 299 \r\n")


async def test_a_large_body_comes_whole() -> None:
    body = b"0123456789abcdef" * 100_000

    async def large(_: HttpRequest) -> Whole:
        return Whole(200, [], body)

    text = await answered(large, asking())
    assert text.partition("\r\n\r\n")[2].encode() == body


async def test_a_stream_comes_in_chunks() -> None:
    text = await answered(streamed, asking(connection="keep-alive"), asking())
    assert text == (
        f"{WHOLE_HEAD}Transfer-Encoding: chunked\r\n\r\n"
        "3\r\none\r\n7\r\nand two\r\n0\r\n\r\n"
        f"{WHOLE_HEAD}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        "3\r\none\r\n7\r\nand two\r\n0\r\n\r\n"
    )


async def test_a_stream_to_an_old_client_ends_with_its_connection() -> None:
    text = await answered(streamed, asking(version="1.0", connection="keep-alive"))
    assert text == "HTTP/1.0 200 OK\r\nDate\r\nContent-Type: text/plain\r\n\r\noneand two"


async def test_a_stream_that_was_left_does_not_look_whole() -> None:
    async def left(request: HttpRequest) -> Streamed:
        stream = Streamed(request, 200, [TYPE])
        await stream.begin()
        stream.push(b"half")
        return stream

    text = await answered(left, asking(connection="keep-alive"))
    assert not text.endswith("0\r\n\r\n")


async def test_a_handler_that_fails_in_mid_answer_says_nothing_more() -> None:
    async def fails(request: HttpRequest) -> Streamed:
        stream = Streamed(request, 200, [TYPE])
        await stream.begin()
        stream.push(b"half")
        raise RuntimeError("on purpose")

    text = await answered(fails, asking(connection="keep-alive"))
    assert text.endswith("\r\n\r\n4\r\nhalf\r\n")


async def test_a_header_with_a_line_break_is_never_written() -> None:
    async def splits(_: HttpRequest) -> Whole:
        return Whole(200, [("x-one", "a\r\nx-two: b")], b"")

    assert await answered(splits, asking()) == ""


async def test_a_stream_waits_for_a_client_that_lags_behind() -> None:
    written, waits = 0, asyncio.Event()

    async def flood(request: HttpRequest) -> Streamed:
        nonlocal written
        stream = Streamed(request, 200, [TYPE])
        await stream.begin()
        for _ in range(400):
            stream.push(b"x" * 100_000)
            writing = asyncio.ensure_future(stream.caught_up())
            await asyncio.sleep(0)
            if connection_of(request).writing_paused:
                waits.set()
            await writing
            written += 1
        await stream.end()
        return stream

    async with server(flood) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1000)
        writer.write(asking().encode())
        await waits.wait()
        assert written < 400
        total = 0
        while data := await reader.read(1 << 20):
            total += len(data)
        assert total > 40_000_000
        assert written == 400
        writer.close()


async def test_a_client_that_asks_first_is_told_to_send_its_body() -> None:
    async def echoes(request: HttpRequest) -> Whole:
        return Whole(200, [], await read_body(request, 100))

    async with server(echoes) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n"
            b"Connection: close\r\n\r\n"
        )
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hello")
        assert (await reader.read()).endswith(b"\r\n\r\nhello")
        writer.close()


async def test_a_refused_client_may_send_its_body_to_the_end_and_ask_again() -> None:
    async def refuses(request: HttpRequest) -> Whole:
        return Whole(401 if request.method == "POST" else 200, [])

    async with server(refuses) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 401 ")
        writer.write(b"x" * 200_000 + asking().encode())
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_requests_sent_at_once_are_answered_in_turn() -> None:
    turns: list[str] = []

    async def takes_turns(request: HttpRequest) -> Whole:
        turns.append(f"begin {request.raw_path}")
        await asyncio.sleep(0)
        turns.append(f"end {request.raw_path}")
        return Whole(200, [], request.raw_path.encode())

    requests = [f"GET /{n} HTTP/1.1\r\nHost: x\r\n\r\n" for n in range(40)]
    text = await answered(takes_turns, *requests, asking())
    assert re.findall(r"\r\n\r\n(/\d*)", text) == [f"/{n}" for n in range(40)] + ["/"]
    assert turns == [f"{step} /{n}" for n in [*range(40), ""] for step in ("begin", "end")]


async def test_an_upgrade_is_not_made_and_its_connection_ends() -> None:
    asked = (
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    text = await answered(whole, asked)
    assert text == f"{WHOLE_HEAD}Connection: close\r\nContent-Length: 5\r\n\r\nhello"


@pytest.mark.parametrize("sent", ["\x16\x03\x01 not HTTP\r\n\r\n", "GET / HTTP/9\r\n\r\n"])
async def test_what_is_not_http_is_refused_and_not_quoted(sent: str) -> None:
    text = await answered(whole, sent)
    assert text.startswith("HTTP/1.0 400 Bad Request\r\n")
    assert '"code":"invalid_http"' in text
    assert "not HTTP" not in text
