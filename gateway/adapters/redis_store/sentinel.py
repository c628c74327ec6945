"""Connections to whichever server Sentinel calls the master at the moment.

redis-py asks the Sentinels anew for each connection it makes. It promises that nothing is sent to a
server that it was not told is the master; one that was demoted since says so at the first write,
and its connection is closed then. How a failover is noticed is told in `server_watch.py`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from redis.asyncio.connection import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from gateway.adapters.redis_store.urls import sentinel_place

_sentinel: Any = Sentinel  # redis-py leaves it untyped


class MasterConnections(SentinelConnectionPool, BlockingConnectionPool):
    """redis-py's pool behind Sentinel, in which a call waits for its turn, as in the pool of a
    single server."""

    def __init__(self, service: str, sentinels: Any, **options: Any) -> None:
        pool: Any = super()
        pool.__init__(service, sentinels, **options)
        self._finding = asyncio.Lock()

    async def get_master_address(self) -> Any:
        """As redis-py finds it, for one connection after the other. None to a Sentinel is kept: one
        that hangs would be found out only at the next failover."""
        pool: Any = super()
        async with self._finding:
            try:
                return await pool.get_master_address()
            except MasterNotFoundError as error:
                raise RedisConnectionError(
                    f"no Sentinel that answers names a master {self.service_name!r}"
                ) from error
            finally:
                for sentinel in self.sentinel_manager.sentinels:
                    await sentinel.connection_pool.disconnect()


def master_connections(url: str, wait_s: float, options: dict[str, Any]) -> MasterConnections:
    """A pool with these options besides those of the URL. All the Sentinels together may take
    `wait_s`: those that are silent must leave time for the one that answers."""
    place = sentinel_place(url)
    each_s = wait_s / len(place.sentinels)
    sentinels = _sentinel(
        place.sentinels,
        sentinel_kwargs={
            "protocol": 2,
            "socket_connect_timeout": each_s,
            "socket_timeout": each_s,
            "retry": Retry(NoBackoff(), 0),
            **place.login,
        },
    )
    return MasterConnections(place.service, sentinels, **{**options, **place.options})
