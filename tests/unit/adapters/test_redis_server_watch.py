"""Which server calls may go to while several come one after the other."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from gateway.adapters.redis_store.server_watch import ServerWatch
from gateway.ports.tasks import spawn


class Greeting:
    """A new connection to this server."""

    def __init__(self, server_id: str) -> None:
        self._server_id = server_id

    async def on_connect(self) -> None: ...

    async def send_command(self, *parts: str) -> None: ...

    async def read_response(self) -> str:
        return f"run_id:{self._server_id}\r\nmaster_replid:r\r\nrole:master"


def greeted(watch: ServerWatch, server_id: str) -> asyncio.Task[Any]:
    return spawn(watch.greet(Greeting(server_id)), server_id, awaited=True)


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_waits_for_a_server_waits_until_this_one_is_accepted() -> None:
    found: list[str] = []
    watch = ServerWatch(found.append)
    first, second = greeted(watch, "b"), greeted(watch, "b")
    await turns()
    assert (found, first.done()) == (["b.r"], False)
    watch.accept("b.r")
    await asyncio.gather(first, second, greeted(watch, "b"))
    assert found == ["b.r"]


async def test_a_server_that_another_has_followed_is_not_accepted_any_more() -> None:
    found: list[str] = []
    watch = ServerWatch(found.append)
    of_b = greeted(watch, "b")
    await turns()
    of_c = greeted(watch, "c")
    with pytest.raises(RedisConnectionError, match="another server has taken"):
        await asyncio.wait_for(of_b, 5)
    watch.accept("b.r")  # compared while the other came
    await turns()
    assert not of_c.done()
    assert watch.is_examined("c.r")
    watch.accept("c.r")
    await asyncio.wait_for(of_c, 5)
    assert found == ["b.r", "c.r"]


async def test_while_one_server_is_compared_no_other_is_found_in_its_place() -> None:
    watch = ServerWatch(lambda server_id: None)
    waiting = greeted(watch, "b")
    await turns()
    await watch.greet_examiner(Greeting("b"))
    later = greeted(watch, "c")
    await turns()
    with pytest.raises(RedisConnectionError, match="the one to be compared"):
        await watch.greet_examiner(Greeting("b"))
    await watch.greet_examiner(Greeting("c"))
    watch.accept("c.r")
    await asyncio.wait_for(later, 5)
    with pytest.raises(RedisConnectionError):
        await asyncio.wait_for(waiting, 5)
