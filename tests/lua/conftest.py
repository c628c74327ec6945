"""A real server with one shard and one account on it, for the tests of the scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis

from gateway.adapters.redis_store.keys import account_keys
from tests.lua.script_calls import Lua


@pytest.fixture
def bare(redis_url: str) -> Iterator[Lua]:
    """An emptied server: no shard is open."""
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        yield Lua(client, account_keys("somebody", 1))


@pytest.fixture
def lua(bare: Lua) -> Lua:
    """An open shard with an account that has used nothing."""
    bare.open()
    bare.bring()
    return bare


@pytest.fixture
def fill_memory(bare: Lua) -> Iterator[Callable[[], None]]:
    """Call it, and from then on the server has no memory left to give."""
    yield lambda: bare.client.config_set("maxmemory", 1)
    bare.client.config_set("maxmemory", 0)
