"""Script calls that share one connection, at a tenth of what redis-py's own calls cost.

redis-py reads the URL, connects, encrypts and logs in; then the connection is taken over. All calls
of one turn of the event loop go out in one write. One connection is enough, because Redis runs one
command at a time, whichever connection it came by. When there is none, one attempt to connect
serves all who wait, each within its own deadline.
"""

from __future__ import annotations

import asyncio
from asyncio import get_running_loop
from collections.abc import Callable, Generator, Sequence
from time import monotonic
from types import coroutine
from typing import Any

from redis.asyncio.connection import ConnectionPool
from redis.exceptions import TimeoutError as RedisTimeoutError

from gateway.adapters.redis_store.calls import Args, Closed, Keys, Observe, Read, T, Translated
from gateway.adapters.redis_store.deadline import Deadline
from gateway.adapters.redis_store.line import CALLS_MAX, Call, Line
from gateway.adapters.redis_store.packing import head_of, pack, packed
from gateway.adapters.redis_store.scripts import Script
from gateway.ports.quota_store import StoreNotAsked
from gateway.ports.tasks import spawn


class FastCalls:
    """Fulfils calls.Calls. `observe(script, seconds)` sees each answered call.

    `connections` tells how to connect; none of its own connections is used.
    """

    def __init__(self, connections: ConnectionPool, deadline_s: float, observe: Observe) -> None:
        self._connections: Any = connections  # redis-py leaves parts of it untyped
        self._deadline_s = deadline_s
        self._observe = observe
        self._line: Line | None = None
        self._given_up: list[Line] = []  # calls may still be answered on these
        self._is_closed = False
        self._connecting: asyncio.Task[None] | None = None
        self._waiting = 0

    async def run(
        self,
        script: Script,
        keys: Keys,
        args: Args,
        rid: str = "",
        read: Read[Any] | None = None,
    ) -> Any:
        call = _call(script, keys, args, rid, read)
        line = self._line
        if line is None or not line.is_open:
            line = await self._connected(call)
        line.ask(call)
        return await call.future

    async def send(
        self, script: Script, keys: Keys, args: Args, rid: str, read: Read[T]
    ) -> asyncio.Future[T]:
        call = _call(script, keys, args, rid, read)
        line = self._line
        if line is None or not line.is_open:
            line = await self._connected(call)
        is_alone = line.ask(call)
        try:
            if is_alone:  # nothing is there to share a write with
                line.flush()
            else:
                await _turn()  # after the write of this turn, which has it
            if line.taken is not None:
                await asyncio.shield(line.taken)
        except asyncio.CancelledError:
            call.future.cancel()
            raise
        return call.future

    async def command(self, *parts: str | bytes | int) -> Any:
        call = Call(
            get_running_loop().create_future(), packed(*parts), None, b"", None, monotonic()
        )
        line = self._line
        if line is None or not line.is_open:
            line = await self._connected(call)
        line.ask(call)
        return await call.future

    async def commands(self, requests: Sequence[Args]) -> list[Any]:
        return await asyncio.gather(*(self.command(*parts) for parts in requests))

    async def aclose(self) -> None:
        self._is_closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        for line in (*self._given_up, self._line):
            if line is not None:
                line.end(ConnectionError("closed"))

    async def _connected(self, call: Call) -> Line:
        """A line for the call, which has waited for it within its deadline."""
        if self._is_closed:
            raise Closed
        if self._waiting >= CALLS_MAX:
            raise StoreNotAsked("too many calls are waiting for Redis")
        call.until_s = call.began_s + self._deadline_s
        left_s = call.until_s - monotonic()
        self._waiting += 1
        try:
            with Translated(), Deadline(asyncio.get_running_loop().time() + left_s):
                while self._line is None or not self._line.is_open:
                    await self._attempt()
                return self._line
        finally:
            self._waiting -= 1

    async def _attempt(self) -> None:
        """Wait for the attempt that is under way, or begin one."""
        if self._connecting is None:
            self._connecting = spawn(self._connect(), "connect to Redis", awaited=True)
            self._connecting.add_done_callback(self._attempted)
        attempt = self._connecting
        await asyncio.wait([attempt])
        error = ConnectionError("closed") if attempt.cancelled() else attempt.exception()
        # An attempt that was too slow began before this call, which may have time for another.
        if error is not None and not isinstance(error, TimeoutError | RedisTimeoutError):
            raise error

    def _attempted(self, task: asyncio.Task[None]) -> None:
        self._connecting = None
        if not task.cancelled():
            task.exception()  # seen, even where nobody waits for it any more

    async def _connect(self) -> None:
        connection = self._connections.make_connection()
        try:
            with Deadline(asyncio.get_running_loop().time() + self._deadline_s):
                await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        self._given_up = [line for line in (*self._given_up, self._line) if line and line.is_used]
        self._line = Line(connection, self._deadline_s, self._observe)


@coroutine
def _turn() -> Generator[None, None, None]:
    """As asyncio.sleep(0), in one step."""
    yield


def _call(
    script: Script, keys: Keys, args: Args, rid: str, read: Callable[[Any], Any] | None
) -> Call:
    head, begin = head_of(script.sha, keys, len(args))
    request = head + pack(args)[begin:]
    return Call(
        get_running_loop().create_future(), request, script, rid.encode(), read, monotonic()
    )
