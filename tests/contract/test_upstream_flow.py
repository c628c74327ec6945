"""Large requests, slow clients, early answers, and calls that are given up half-way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from gateway.adapters.upstream.answer import BUFFER_BYTES_MAX, Answer
from gateway.adapters.upstream.connection import PIECE_BYTES
from gateway.adapters.upstream.direct import DirectUpstream
from gateway.ports.answer import ClientGone
from gateway.ports.tasks import spawn
from gateway.ports.upstream import UpstreamAnswer, UpstreamBroke, UpstreamSilent
from tests.contract.upstream_calls import OpenTo, asked, direct, idle, only_connection, send, until
from tests.contract.upstream_server import Reply, chunked, http, serving
from tests.fakes.upstream import chunks

# aiohttp's client would rather have a file.
pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body")

LARGE = bytes(range(256)) * 2**15  # 8 MiB
REFUSED = http(b"too large", "Connection: close", status="413 Too Large")


async def test_a_large_request_and_a_large_answer_come_through(open_to: OpenTo) -> None:
    replies = (http(LARGE), http(b"small"))
    async with serving(*replies).running() as server, open_to(server.url) as upstream:
        assert (await asked(upstream, LARGE))[1] == LARGE
        assert (await asked(upstream))[1] == b"small"
    assert server.requests[0][1] == LARGE
    assert server.connections == 1


async def test_what_a_server_does_not_read_waits_outside_the_transport() -> None:
    deaf = Reply(early=True, then="deaf")
    async with serving(deaf).running() as server, direct(server.url) as upstream:
        call = spawn(send(upstream, LARGE), "call", awaited=True)
        await until(lambda: upstream.wheel.watched)
        connection = only_connection(upstream)
        await until(lambda: connection._is_full)
        assert connection._transport.get_write_buffer_size() <= 3 * PIECE_BYTES
        for _ in range(100):
            upstream.wheel.advance()
        with pytest.raises(UpstreamSilent):
            await call
    assert not upstream.wheel.watched


async def test_a_refusal_that_comes_before_the_request_was_read_is_delivered(
    open_to: OpenTo,
) -> None:
    early = Reply(REFUSED, "hang", early=True)
    async with serving(early, http()).running() as server, open_to(server.url) as upstream:
        head, body = await asked(upstream, LARGE)
        assert (head.status, body) == (413, b"too large")
        assert (await asked(upstream))[1] == b"{}"
    assert server.connections == 2


async def test_an_answer_that_begins_before_the_request_was_read_has_the_rest_sent() -> None:
    early = Reply(chunked(b"so far"), "hang", early=True)
    async with serving(early).running() as server, direct(server.url) as upstream:
        answer = await send(upstream, LARGE)
        assert await anext(chunks(answer)) == b"so far"
        transport = only_connection(upstream)._transport
        await until(lambda: not transport.get_write_buffer_size())
        await answer.close()
    assert server.rest == LARGE


async def test_a_slow_client_holds_its_upstream_back_and_is_not_taken_for_silence() -> None:
    replies = (http(LARGE), http(b"next"))
    async with serving(*replies).running() as server, direct(server.url) as upstream:
        answer = await send(upstream)
        connection = only_connection(upstream)
        await until(lambda: connection._is_paused)
        assert isinstance(answer, Answer)
        assert answer._size <= 3 * BUFFER_BYTES_MAX
        for _ in range(100):
            upstream.wheel.advance()
        body = b"".join([data async for data in chunks(answer)])
        assert body == LARGE
        assert not connection._is_paused
        assert (await asked(upstream))[1] == b"next"
    assert server.connections == 1


async def test_a_body_read_whole_is_not_held_back() -> None:
    async with serving(http(LARGE)).running() as server, direct(server.url) as upstream:
        answer = await send(upstream)
        connection = only_connection(upstream)
        await until(lambda: connection._is_paused)
        assert await answer.read() == LARGE


def has_come(answer: Answer, size: int) -> bool:
    return answer._size == size


async def test_what_came_since_the_last_look_comes_as_one() -> None:
    async with serving(chunked(b"1")).running() as server, direct(server.url) as upstream:
        answer = await send(upstream)
        assert isinstance(answer, Answer)
        come = answer._size
        for text in (b"2", b"3"):
            server.writers[0].write(b"1\r\n" + text + b"\r\n")
            come += 6
            await until(partial(has_come, answer, come))
        assert await anext(chunks(answer)) == b"123"
        server.writers[0].write(b"0\r\n\r\n")
        assert [data async for data in chunks(answer)] == []


async def test_who_objects_to_a_piece_or_has_enough_may_pour_on(open_to: OpenTo) -> None:
    taken: list[bytes] = []

    def take(data: bytes) -> bool:
        taken.append(data)
        if data == b"2":
            raise ClientGone
        return data != b"3"

    held = Reply(chunked(b"1"), "hang")
    async with serving(held).running() as server, open_to(server.url) as upstream:
        answer = await send(upstream)
        pouring = asyncio.ensure_future(answer.pour(take))
        await until(lambda: bool(taken))
        server.writers[0].write(b"1\r\n2\r\n")
        with pytest.raises(ClientGone):
            await pouring
        server.writers[0].write(b"1\r\n3\r\n")
        assert not await answer.pour(take)
        server.writers[0].write(b"1\r\n4\r\n0\r\n\r\n")
        assert await answer.pour(take)
    assert taken == [b"1", b"2", b"3", b"4"]


async def test_what_came_with_what_is_no_answer_is_poured_before_the_trouble_is_told() -> None:
    taken: list[bytes] = []

    def take(data: bytes) -> bool:
        taken.append(data)
        return True

    held = Reply(chunked(b"1"), "hang")
    async with serving(held).running() as server, direct(server.url) as upstream:
        answer = await send(upstream)
        pouring = asyncio.ensure_future(answer.pour(take))
        await until(lambda: bool(taken))
        server.writers[0].write(b"1\r\n2\r\nnone\r\n")
        with pytest.raises(UpstreamBroke):
            await pouring
    assert taken == [b"1", b"2"]


# --- given up ----------------------------------------------------------------------------------


async def whole(answer: UpstreamAnswer) -> None:
    await answer.read()


async def in_chunks(answer: UpstreamAnswer) -> None:
    async for _ in chunks(answer):
        pass


GIVEN_UP = {
    "before the head": (Reply(b"", "hang"), whole),
    "within the head": (Reply(b"HTTP/1.1 200 OK\r\n", "hang"), whole),
    "within a body": (Reply(http(b"{}")[:-1], "hang"), whole),
    "within a stream": (Reply(chunked(b"data: 1\n\n"), "hang"), in_chunks),
    "while sending": (Reply(early=True, then="deaf"), whole),
}


@pytest.mark.parametrize(("reply", "take"), GIVEN_UP.values(), ids=GIVEN_UP.keys())
async def test_a_call_given_up_closes_its_connection_and_leaves_nothing(
    reply: Reply, take: Callable[[UpstreamAnswer], Awaitable[None]], open_to: OpenTo
) -> None:
    async with serving(reply, http()).running() as server, open_to(server.url) as upstream:

        async def run() -> None:
            answer = await send(upstream, LARGE if reply.early else b"{}")
            try:
                await take(answer)
            finally:
                await answer.close()

        call = spawn(run(), "call", awaited=True)
        await until(lambda: server.requests)
        await asyncio.sleep(0.01)  # further in, if it gets further; it is right anywhere
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert idle(upstream) == 0
        if isinstance(upstream, DirectUpstream):
            await until(lambda: not upstream.wheel.watched)
        assert (await asked(upstream))[1] == b"{}"
    assert server.connections == 2


async def test_a_call_given_up_while_it_connects_leaves_nothing(open_to: OpenTo) -> None:
    """A server that waits for more of a request is asked for TLS, and says nothing."""
    async with serving().running() as server:
        url = server.url.replace("http:", "https:")
        async with open_to(url) as upstream:
            call = spawn(send(upstream), "call", awaited=True)
            await until(lambda: server.connections == 1)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await until(lambda: server.closed == 1)


async def test_an_answer_that_was_dropped_says_so() -> None:
    half = Reply(chunked(b"data: 1\n\n"))
    async with serving(half).running() as server, direct(server.url) as upstream:
        answer = await send(upstream)
        await answer.close()
        assert await anext(chunks(answer)) == b"data: 1\n\n"
        with pytest.raises(UpstreamBroke, match="given up"):
            await anext(chunks(answer))


async def test_closing_the_adapter_ends_the_calls_that_are_open() -> None:
    async with serving(Reply(b"", "hang")).running() as server:
        async with direct(server.url) as upstream:
            call = spawn(send(upstream), "call", awaited=True)
            await until(lambda: server.requests)
        assert not upstream.wheel.watched
        with pytest.raises(UpstreamBroke, match="stopping"):
            await call
