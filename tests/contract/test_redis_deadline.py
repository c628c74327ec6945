"""The deadline of a script call: it is about Redis, not about how busy this process is."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from gateway.adapters.redis_store.calls import Calls, open_connections
from gateway.adapters.redis_store.scripts import Script
from gateway.ports.quota_store import StoreUnavailable
from gateway.ports.tasks import spawn
from tests.contract.quota_samples import KINDS

DEADLINE_S = 0.1
SOURCE = "return {1, ''}"
ANSWER = Script("answer", SOURCE, hashlib.sha1(SOURCE.encode()).hexdigest())


@asynccontextmanager
async def open_calls(
    redis_url: str, client: str, deadline_s: float = DEADLINE_S
) -> AsyncIterator[Calls]:
    """Connected, and the script is there."""
    connections = open_connections(redis_url, deadline_s)
    calls = KINDS[client](connections, deadline_s, lambda script, seconds: None)
    assert await calls.run(ANSWER, (), ()) == [1, b""]
    yield calls
    await calls.aclose()


async def pause(redis_url: str, pause_ms: int) -> None:
    async with Redis.from_url(redis_url) as client:
        await client.client_pause(pause_ms)


def be_busy() -> None:
    time.sleep(3 * DEADLINE_S)


async def test_a_process_that_stalls_does_not_take_redis_for_away(
    redis_url: str, client: str
) -> None:
    async with open_calls(redis_url, client) as calls:
        reply = await calls.send(ANSWER, (), (), "", list)
        be_busy()  # and the reply comes meanwhile
        assert await reply == [1, b""]


async def test_a_process_that_stalls_before_a_call_is_out_does_not_blame_redis_either(
    redis_url: str, client: str
) -> None:
    async with open_calls(redis_url, client) as calls:
        asked = spawn(calls.run(ANSWER, (), ()), "ask", awaited=True)
        asyncio.get_running_loop().call_soon(be_busy)  # right after the call has asked
        assert await asked == [1, b""]


async def test_a_redis_that_does_not_answer_is_given_up_at_the_deadline(
    redis_url: str, client: str
) -> None:
    async with open_calls(redis_url, client) as calls:
        await pause(redis_url, 2000)
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await calls.command("PING")
        assert DEADLINE_S <= time.monotonic() - began < 2.0


async def test_a_cancelled_call_stays_cancelled(redis_url: str, client: str) -> None:
    async with open_calls(redis_url, client, 5.0) as calls:
        await pause(redis_url, 500)
        call = asyncio.ensure_future(calls.command("PING"))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
