"""Which connection a call gets, and what becomes of it afterwards."""

from __future__ import annotations

import asyncio

import pytest

from gateway.ports.upstream import UpstreamBroke
from tests.contract.upstream_calls import OpenTo, asked, idle, send, until
from tests.contract.upstream_server import Reply, Then, chunked, http, serving
from tests.fakes.upstream import chunks


async def test_a_body_read_to_its_end_gives_its_connection_back(open_to: OpenTo) -> None:
    ended = chunked(b"data: 1\n\n") + b"0\r\n\r\n"
    replies = (http(), ended, http(status="429 Slow"), http())
    async with serving(*replies).running() as server, open_to(server.url) as upstream:
        for _ in replies:
            await asked(upstream)
    assert (len(server.requests), server.connections) == (4, 1)


async def test_a_body_that_was_not_read_to_its_end_takes_its_connection_with_it(
    open_to: OpenTo,
) -> None:
    half = Reply(chunked(b"data: 1\n\n"))
    async with serving(half, http()).running() as server, open_to(server.url) as upstream:
        answer = await send(upstream)
        await anext(chunks(answer))
        await answer.close()
        assert (await asked(upstream))[1] == b"{}"
    assert server.connections == 2


async def test_a_connection_that_upstream_closed_meanwhile_is_replaced(open_to: OpenTo) -> None:
    replies = (Reply(http(), "close"), http())
    async with serving(*replies).running() as server, open_to(server.url) as upstream:
        await asked(upstream)
        await until(lambda: idle(upstream) == 0)
        assert (await asked(upstream))[1] == b"{}"
    assert (len(server.requests), server.connections) == (2, 2)


@pytest.mark.parametrize("then", ["close", "reset"])
async def test_a_request_that_broke_on_a_reused_connection_is_not_sent_again(
    open_to: OpenTo, then: Then
) -> None:
    replies = (Reply(http()), Reply(b"", then), Reply(http()))
    async with serving(*replies).running() as server, open_to(server.url) as upstream:
        await asked(upstream)
        with pytest.raises(UpstreamBroke):
            await asked(upstream)
    assert (len(server.requests), server.connections) == (2, 1)


async def test_calls_at_the_same_time_each_have_a_connection_and_their_own_answer(
    open_to: OpenTo,
) -> None:
    replies = [http(b"%d" % number) for number in range(20)]
    async with serving(*replies).running() as server, open_to(server.url) as upstream:
        bodies = await asyncio.gather(*(asked(upstream) for _ in range(20)))
    assert sorted(int(body) for _, body in bodies) == list(range(20))
