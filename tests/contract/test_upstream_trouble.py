"""What an adapter of the Upstream port says of trouble."""

from __future__ import annotations

import asyncio
import traceback

import pytest

from gateway.ports.tasks import spawn
from gateway.ports.upstream import (
    UpstreamAnswer,
    UpstreamBroke,
    UpstreamSilent,
    UpstreamUnreachable,
)
from tests.contract.upstream_calls import KEY, OpenTo, send, silence, trouble, until
from tests.contract.upstream_server import Reply, Then, chunked, closed_port, serving
from tests.fakes.upstream import chunks


async def test_a_closed_port_is_out_of_reach(open_to: OpenTo) -> None:
    assert isinstance(await trouble(open_to, closed_port()), UpstreamUnreachable)


async def test_a_name_that_nobody_has_is_out_of_reach(open_to: OpenTo) -> None:
    assert isinstance(await trouble(open_to, "http://nobody.invalid"), UpstreamUnreachable)


async def test_a_server_without_tls_saw_nothing_of_the_request(open_to: OpenTo) -> None:
    async with serving().running() as server:
        error = await trouble(open_to, server.url.replace("http:", "https:"), connect_s=0.2)
    assert isinstance(error, UpstreamUnreachable)
    assert server.requests == []


@pytest.mark.parametrize("then", ["close", "reset"])
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",
        chunked(b"data: 1\n\n"),
        chunked(b"data: 1\n\n")[:-4],
    ],
    ids=len,
)
async def test_a_connection_that_ends_early_broke(open_to: OpenTo, raw: bytes, then: Then) -> None:
    async with serving(Reply(raw, then)).running() as server:
        assert isinstance(await trouble(open_to, server.url), UpstreamBroke)
    assert len(server.requests) == 1


@pytest.mark.parametrize("raw", [b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\0" * 50])
async def test_what_is_not_http_broke(open_to: OpenTo, raw: bytes) -> None:
    async with serving(Reply(raw, "close")).running() as server:
        assert isinstance(await trouble(open_to, server.url), UpstreamBroke)


@pytest.mark.parametrize(
    "raw",
    [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", chunked(b"1")],
    ids=len,
)
async def test_a_server_that_says_nothing_more_is_silent(open_to: OpenTo, raw: bytes) -> None:
    async with serving(Reply(raw, "hang")).running() as server:
        assert isinstance(await silence(open_to, server.url), UpstreamSilent)


async def test_what_came_before_the_trouble_is_not_lost(open_to: OpenTo) -> None:
    half = Reply(chunked(b"data: 1\n\n", b"data: 2\n\n"), "close")
    async with serving(half).running() as server, open_to(server.url) as upstream:
        answer = await send(upstream)
        got: list[bytes] = []
        with pytest.raises(UpstreamBroke):
            await read_into(got, answer)
        await answer.close()
    assert b"".join(got) == b"data: 1\n\ndata: 2\n\n"


async def read_into(got: list[bytes], answer: UpstreamAnswer) -> None:
    async for data in chunks(answer):
        got.append(data)


async def test_no_error_names_the_key_the_user_or_the_address(open_to: OpenTo) -> None:
    errors = [
        await trouble(open_to, closed_port()),
        await trouble(open_to, "http://nobody.invalid"),
    ]
    for reply in (Reply(b"", "close"), Reply(b"\0" * 50, "close"), Reply(chunked(b"1"), "close")):
        async with serving(reply).running() as server:
            errors.append(await trouble(open_to, server.url))
    async with serving(Reply(b"", "hang")).running() as server:
        errors.append(await silence(open_to, server.url))
    for error in errors:
        shown = "".join(traceback.format_exception_only(error)) + repr(error)
        assert not any(word in shown for word in (KEY, "Bearer", "ada", "127.0.0.1", "nobody"))
        assert error.__suppress_context__


async def test_a_call_given_up_leaves_no_connection_behind(open_to: OpenTo) -> None:
    async with serving(Reply(b"", "hang")).running() as server, open_to(server.url) as upstream:
        call = spawn(send(upstream), "call", awaited=True)
        await until(lambda: server.requests)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(lambda: server.closed == 1)
