"""Script calls over redis-py's connections, one connection for each call under way.

A call that was cancelled or timed out closes its connection, because its reply may still come and
must reach nobody else. It takes several times the processor time of the fast client, but every call
is redis-py's own, so that trouble of theirs can be told from trouble of ours.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import NoScriptError, ReadOnlyError, ResponseError

from gateway.adapters.redis_store.calls import (
    Args,
    Closed,
    Keys,
    Observe,
    Read,
    T,
    Translated,
    check_echo,
)
from gateway.adapters.redis_store.deadline import Deadline
from gateway.adapters.redis_store.scripts import Script
from gateway.ports.quota_store import StoreUnavailable
from gateway.ports.tasks import spawn


class PlainCalls:
    """Fulfils calls.Calls. `observe(script, seconds)` sees each answered call."""

    def __init__(self, connections: ConnectionPool, deadline_s: float, observe: Observe) -> None:
        self._connections: Any = connections  # redis-py leaves parts of it untyped
        self._deadline_s = deadline_s
        self._observe = observe
        self._is_closed = False

    async def run(
        self,
        script: Script,
        keys: Keys,
        args: Args,
        rid: str = "",
        read: Read[Any] | None = None,
    ) -> Any:
        return await (await self._ask(script, (keys, args), rid, read))

    async def send(
        self, script: Script, keys: Keys, args: Args, rid: str, read: Read[T]
    ) -> asyncio.Future[T]:
        answer = await self._ask(script, (keys, args), rid, read)
        return spawn(answer, f"{script.name} {rid}", awaited=True)

    async def command(self, *parts: str | bytes | int) -> Any:
        with Translated(), Deadline(asyncio.get_running_loop().time() + self._deadline_s):
            connection = await self._connection()
            return await self._exchange(connection, parts)

    async def commands(self, requests: Sequence[Args]) -> list[Any]:
        with Translated(), Deadline(asyncio.get_running_loop().time() + self._deadline_s):
            connection = await self._connection()
            try:
                await connection.send_packed_command(connection.pack_commands(requests))
                replies = [await connection.read_response() for _ in requests]
            except BaseException:  # whatever comes of the others must reach nobody
                await self._drop(connection)
                raise
            await self._connections.release(connection)
            return replies

    async def aclose(self) -> None:
        self._is_closed = True
        await self._connections.disconnect()

    async def _ask(
        self, script: Script, given: tuple[Keys, Args], rid: str, read: Read[Any] | None
    ) -> Coroutine[Any, Any, Any]:
        """Send; what comes back is to be awaited, and brings the reply or what is read of it."""
        times_s = (time.monotonic(), asyncio.get_running_loop().time() + self._deadline_s)
        connection = await self._send(script, given, times_s[1])

        async def answer() -> Any:
            reply = await self._reply(connection, script, given, times_s)
            check_echo(reply, rid.encode())
            return read(reply) if read else reply

        return answer()

    async def _send(
        self, script: Script, given: tuple[Keys, Args], until_s: float
    ) -> AbstractConnection:
        keys, args = given
        with Translated(), Deadline(until_s):
            connection = await self._connection()
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
        given: tuple[Keys, Args],
        times_s: tuple[float, float],
    ) -> Any:
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
        return reply

    async def _connection(self) -> AbstractConnection:
        self._check_open()
        connection: AbstractConnection = await self._connections.get_connection()
        try:
            self._check_open()  # it may have been closed while it connected
        except Closed:
            await self._drop(connection)
            raise
        return connection

    def _check_open(self) -> None:
        if self._is_closed:
            raise Closed

    async def _read(self, connection: AbstractConnection, until_s: float) -> Any:
        with Translated(), Deadline(until_s):
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
        except ReadOnlyError:  # it is a replica now: the next call looks for another
            await self._drop(connection)
            raise
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
