"""Which server process the connections of the traffic may talk to.

A server that went back in time (a restart without its newest writes, a stale replica in its place)
is always behind a new connection, and calls itself by another id. Such a connection waits, within
its caller's deadline, until somebody has compared what the server knows with what was seen. A
replica is not talked to at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError

Greet = Callable[[Any], Awaitable[None]]


class ServerWatch:
    """Asks each new connection's server for its id. `on_new` is called once for each new one and
    answers, sooner or later, with `accept`; of several only the newest is waited for."""

    def __init__(self, on_new: Callable[[str], None]) -> None:
        self._on_new = on_new
        self._accepted = ""
        self._examined = ""
        self._over = asyncio.Event()

    async def greet(self, connection: Any) -> None:
        """For redis-py's `redis_connect_func`: log in, then make sure of the server."""
        server_id = await _introduced(connection)
        if server_id == self._accepted:
            return
        if server_id != self._examined:
            self._over.set()  # nobody will accept the one before it any more
            self._examined, self._over = server_id, asyncio.Event()
            self._on_new(server_id)
        await self._over.wait()
        if server_id != self._accepted:
            raise RedisConnectionError("another server has taken this one's place")

    async def greet_examiner(self, connection: Any) -> None:
        """The same for those who compare: they wait for nobody, but while a server is examined
        they must not reach another, which would be found in order instead of it."""
        server_id = await _introduced(connection)
        if self._examined and server_id != self._examined:
            raise RedisConnectionError("another server answers than the one to be compared")

    def is_examined(self, server_id: str) -> bool:
        """Whether somebody may wait for this server still."""
        return server_id == self._examined

    def accept(self, server_id: str) -> None:
        """What this server knows is in order: calls may go on, unless another has come since."""
        if server_id == self._examined:
            self._accepted, self._examined = server_id, ""
            self._over.set()


def id_of(info: Mapping[str, Any]) -> str:
    """By which a server is known: of its process, and of its history since it became the primary.
    A process may be demoted and come back with what another has kept meanwhile.
    https://redis.io/docs/latest/operate/oss_and_stack/management/replication/ (Replication ID)"""
    return f"{info['run_id']}.{info.get('master_replid', '')}"


async def _introduced(connection: Any) -> str:
    await connection.on_connect()
    # Several sections in one command: Redis 7.0 (https://redis.io/docs/latest/commands/info/).
    await connection.send_command("INFO", "server", "replication")
    reply = await connection.read_response()
    text = reply.decode() if isinstance(reply, bytes) else str(reply)
    info = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    if "run_id" not in info:
        raise RedisConnectionError("the server does not tell its run_id")
    if info.get("role") != "master":
        raise RedisConnectionError("the server is a replica")
    return id_of(info)
