"""The breaker on a real server behind a link that counts, and on one that is stopped."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.adapters.embedded import RunningServer
from gateway.adapters.redis_store.breaker import IN_A_ROW, Breaker, Chances
from gateway.adapters.redis_store.calls import open_connections
from gateway.ports.quota_store import StoreUnavailable
from tests.contract.quota_samples import KINDS
from tests.contract.redis_link import open_link
from tests.frozen_redis import redis_pid


class Frozen:
    """The server's process, stopped and let go."""

    def __init__(self, url: str) -> None:
        self._pid = redis_pid(url)

    def stop(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._pid, signal.SIGCONT)


@pytest.fixture
def frozen(redis_url: str, redis_server: RunningServer) -> Iterator[Frozen]:
    server = Frozen(redis_url)
    yield server
    server.go_on()


async def test_a_stopped_server_is_waited_for_three_times_and_found_when_it_is_back(
    redis_url: str, tmp_path: Path, client: str, frozen: Frozen
) -> None:
    told: list[bool] = []
    closed, may_probe, pauses = asyncio.Event(), asyncio.Event(), list[float]()

    def hear(is_open: bool) -> None:
        told.append(is_open)
        if not is_open:
            closed.set()

    async def sleep(pause_s: float) -> None:
        pauses.append(pause_s)
        await may_probe.wait()

    async with open_link(redis_url, tmp_path) as link:
        calls = KINDS[client](open_connections(link.url, 0.15), 0.15, lambda name, seconds: None)
        breaker = Breaker(calls, hear, Chances(lambda: 0.0, lambda: 0.25, sleep))
        assert await breaker.command("PING") == b"PONG"
        frozen.stop()
        for _ in range(IN_A_ROW):
            assert told == []
            with pytest.raises(StoreUnavailable, match="TimeoutError"):
                await breaker.command("PING")
        assert told == [True]
        connections = link.connections
        for _ in range(100):
            call = breaker.command("PING")
            with pytest.raises(StoreUnavailable, match="trying again"):
                call.send(None)  # fails in its first step: nothing is waited for
        await asyncio.sleep(0)
        assert (link.connections, pauses) == (connections, [0.375])
        frozen.go_on()
        may_probe.set()
        await asyncio.wait_for(closed.wait(), 10)
        assert told == [True, False]
        assert await breaker.command("PING") == b"PONG"
        await breaker.aclose()


async def test_a_server_that_refuses_has_answered(redis_url: str, client: str) -> None:
    told: list[bool] = []
    calls = KINDS[client](open_connections(redis_url, 5.0), 5.0, lambda name, seconds: None)
    breaker = Breaker(calls, told.append, Chances(lambda: 0.0, lambda: 0.0))
    for _ in range(2 * IN_A_ROW):
        with pytest.raises(StoreUnavailable, match="unknown command"):
            await breaker.command("NOTHING")
    assert told == []
    await breaker.aclose()
