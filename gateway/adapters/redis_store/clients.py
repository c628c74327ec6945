"""redis-py's own clients, for what waits, or reads much, or asks about a server.

Their retries are switched off: whoever asks knows best whether to ask again. Commands that fail
raise the port's error.
"""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.adapters.redis_store.sentinel import master_connections
from gateway.adapters.redis_store.urls import is_sentinel
from gateway.ports.quota_store import StoreUnavailable


def open_client(url: str, wait_s: float = 5.0) -> Redis:
    """A client of one server, or of the master that Sentinels name. Its answers may take `wait_s`
    longer than the longest blocking read (1 s)."""
    options: dict[str, Any] = {
        "protocol": 2,  # one form of reply for XREAD, old servers and new
        "socket_connect_timeout": wait_s,
        "socket_timeout": wait_s + 1.0,
        "retry": Retry(NoBackoff(), 0),
    }
    if is_sentinel(url):
        return Redis.from_pool(master_connections(url, wait_s, options))
    return Redis.from_url(url, **options)


async def asked(command: str, call: Any) -> Any:
    """The reply of a redis-py call; StoreUnavailable when there is none."""
    try:
        return await call
    except (RedisError, OSError) as error:
        raise StoreUnavailable(f"{command}: {type(error).__name__}: {error}") from error
