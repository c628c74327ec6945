"""Which server process the connections of the traffic may talk to.

A server that went back in time (a restart without its newest writes, a stale replica in its place)
is always behind a new connection, and calls itself by another id. Such a connection waits, within
its caller's deadline, until somebody has compared what the server knows with what was seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError


class ServerWatch:
    """Asks each new connection's server for its id. `on_new` is called once for each new one and
    answers, sooner or later, with `accept`."""

    def __init__(self, on_new: Callable[[str], None]) -> None:
        self._on_new = on_new
        self._accepted = ""
        self._examined: dict[str, asyncio.Event] = {}

    async def greet(self, connection: Any) -> None:
        """For redis-py's `redis_connect_func`: log in, then make sure of the server."""
        await connection.on_connect()
        server_id = await self._ask_id(connection)
        if server_id == self._accepted:
            return
        if server_id not in self._examined:
            self._examined[server_id] = asyncio.Event()
            self._on_new(server_id)
        await self._examined[server_id].wait()

    def accept(self, server_id: str) -> None:
        """What this server knows is in order: calls may go on."""
        self._accepted = server_id
        for event in self._examined.values():
            event.set()
        self._examined.clear()

    async def _ask_id(self, connection: Any) -> str:
        await connection.send_command("INFO", "server")
        reply = await connection.read_response()
        text = reply.decode() if isinstance(reply, bytes) else str(reply)
        for line in text.splitlines():
            if line.startswith("run_id:"):
                return line.removeprefix("run_id:")
        raise RedisConnectionError("the server does not tell its run_id")
