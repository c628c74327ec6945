"""Script calls over redis-py's connections: bounded in time, never repeated by themselves.

redis-py would repeat a dropped call ten times; a repeated charge is somebody's money, so here
nothing is sent twice but after NOSCRIPT (the script did not run then). A call that was cancelled or
timed out closes its connection, because its reply may still come and must reach nobody else. What
such a call did is unknown; only the caller's rid can tell.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection, BlockingConnectionPool, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from gateway.adapters.redis_store.deadline import Deadline
from gateway.adapters.redis_store.scripts import NAMES, Script
from gateway.adapters.redis_store.server_watch import ServerWatch
from gateway.ports.quota_store import StoreRejected, StoreUnavailable

# One call lasts well under a millisecond, so 64 connections carry tens of thousands a second.
CONNECTIONS_MAX = 64

# redis-py strips "ERR " from an error's text; these are the scripts' own words and a wrong type.
_REJECTIONS = (*(f"{name}:" for name in NAMES), "WRONGTYPE")

Observe = Callable[[str, float], None]
Args = Sequence[str | bytes | int]


def open_connections(
    url: str, deadline_s: float, watch: ServerWatch | None = None
) -> ConnectionPool:
    """Connections that never retry, and wait at most `deadline_s` for a server or their turn.

    With a `watch`, a connection to a server that is new is used once that was accepted.
    """
    return BlockingConnectionPool.from_url(
        url,
        redis_connect_func=watch.greet if watch else None,
        max_connections=CONNECTIONS_MAX,
        timeout=deadline_s,
        socket_connect_timeout=deadline_s,
        socket_timeout=None,  # the deadline is kept here, around the whole call
        retry=Retry(NoBackoff(), 0),
    )


class Calls:
    """Runs scripts by digest. `observe(script, seconds)` sees each answered call."""

    def __init__(self, connections: ConnectionPool, deadline_s: float, observe: Observe) -> None:
        self._connections: Any = connections  # redis-py leaves parts of it untyped
        self._deadline_s = deadline_s
        self._observe = observe

    async def run(self, script: Script, keys: Sequence[str], args: Args) -> list[Any]:
        """Send and wait for the reply. StoreUnavailable: the outcome is unknown."""
        return await (await self.send(script, keys, args))

    async def send(
        self, script: Script, keys: Sequence[str], args: Args
    ) -> Coroutine[Any, Any, list[Any]]:
        """Hand the call to the kernel; what is returned must be awaited and brings the reply."""
        started_s = time.monotonic()
        until_s = asyncio.get_running_loop().time() + self._deadline_s
        connection = await self._send(script, (keys, args), until_s)
        return self._reply(connection, script, (keys, args), (started_s, until_s))

    async def command(self, *parts: str | bytes | int) -> Any:
        """One plain command under the same rules."""
        with _Translated(), Deadline(asyncio.get_running_loop().time() + self._deadline_s):
            connection = await self._connections.get_connection()
            return await self._exchange(connection, parts)

    async def _send(
        self, script: Script, given: tuple[Sequence[str], Args], until_s: float
    ) -> AbstractConnection:
        keys, args = given
        with _Translated(), Deadline(until_s):
            connection: AbstractConnection = await self._connections.get_connection()
            try:
                await connection.send_command("EVALSHA", script.sha, len(keys), *keys, *args)
            except BaseException:
                await self._drop(connection)
                raise
        return connection

    async def _reply(
        self,
        connection: AbstractConnection,
        script: Script,
        given: tuple[Sequence[str], Args],
        times_s: tuple[float, float],
    ) -> list[Any]:
        started_s, until_s = times_s
        try:
            reply = await self._read(connection, until_s)
        except NoScriptError:
            await self.command("SCRIPT", "LOAD", script.source)
            repeated = await self._send(script, given, until_s)
            try:
                reply = await self._read(repeated, until_s)
            except NoScriptError as error:
                raise StoreUnavailable(f"{script.name}: {error}") from error
        self._observe(script.name, time.monotonic() - started_s)
        if not isinstance(reply, list):
            raise StoreUnavailable(f"{script.name}: the reply is not a list")
        return reply

    async def _read(self, connection: AbstractConnection, until_s: float) -> Any:
        with _Translated(), Deadline(until_s):
            return await self._finish(connection)

    async def _exchange(self, connection: AbstractConnection, parts: Sequence[Any]) -> Any:
        try:
            await connection.send_command(*parts)
        except BaseException:
            await self._drop(connection)
            raise
        return await self._finish(connection)

    async def _finish(self, connection: AbstractConnection) -> Any:
        try:
            reply = await connection.read_response()
        except ResponseError:  # a whole reply was read: the connection is clean
            await self._connections.release(connection)
            raise
        except BaseException:
            await self._drop(connection)
            raise
        await self._connections.release(connection)
        return reply

    async def _drop(self, connection: AbstractConnection) -> None:
        """Close a connection whose replies can no longer be matched, then free its place."""
        await connection.disconnect(nowait=True)
        await self._connections.release(connection)


class _Translated:
    """Turns redis-py's errors into the port's; NOSCRIPT passes, because its script did not run."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, NoScriptError):
            return
        if isinstance(error, ResponseError) and str(error).startswith(_REJECTIONS):
            raise StoreRejected(str(error)) from error
        if isinstance(error, RedisError | OSError | TimeoutError):
            raise StoreUnavailable(f"{type(error).__name__}: {error}") from error
