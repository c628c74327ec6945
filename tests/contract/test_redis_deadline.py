"""The deadline of a script call: it is about Redis, not about how busy this process is."""

from __future__ import annotations

import asyncio
import hashlib
import time

import pytest
from redis.asyncio import Redis

from gateway.adapters.redis_store.calls import Calls, open_connections
from gateway.adapters.redis_store.scripts import Script
from gateway.ports.quota_store import StoreUnavailable

DEADLINE_S = 0.1
SOURCE = "return {1}"
ANSWER = Script("answer", SOURCE, hashlib.sha1(SOURCE.encode()).hexdigest())


def quiet(script: str, seconds: float) -> None:
    """Nobody watches the times here."""


async def pause(redis_url: str, pause_ms: int) -> None:
    async with Redis.from_url(redis_url) as client:
        await client.client_pause(pause_ms)


def be_busy() -> None:
    time.sleep(3 * DEADLINE_S)


async def test_a_process_that_stalls_does_not_take_redis_for_away(redis_url: str) -> None:
    connections = open_connections(redis_url, DEADLINE_S)
    calls = Calls(connections, DEADLINE_S, quiet)
    assert await calls.run(ANSWER, (), ()) == [1]
    reply = await calls.send(ANSWER, (), ())
    be_busy()  # and the reply comes meanwhile
    assert await reply == [1]
    await connections.disconnect()


async def test_a_redis_that_does_not_answer_is_given_up_at_the_deadline(redis_url: str) -> None:
    connections = open_connections(redis_url, DEADLINE_S)
    calls = Calls(connections, DEADLINE_S, quiet)
    await calls.command("PING")
    await pause(redis_url, 2000)
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await calls.command("PING")
    assert DEADLINE_S <= time.monotonic() - began < 2.0
    await connections.disconnect()


async def test_a_cancelled_call_stays_cancelled(redis_url: str) -> None:
    connections = open_connections(redis_url, 5.0)
    calls = Calls(connections, 5.0, quiet)
    await calls.command("PING")
    await pause(redis_url, 500)
    call = asyncio.ensure_future(calls.command("PING"))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await connections.disconnect()
