"""One answer on its way to whoever asked: fulfils ports.upstream.UpstreamAnswer.

The connection puts bytes in and the caller, one task, takes them out. What comes faster than it is
taken stops the reading (BUFFER_BYTES_MAX), so a slow client holds its own upstream back and nothing
else. Once the answer has come whole it holds no connection any more. It knows no HTTP.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from gateway.adapters.upstream.origin import BODY_BYTES_MAX
from gateway.adapters.upstream.reader import ResponseReader
from gateway.ports.upstream import UpstreamBroke, UpstreamHead, UpstreamSilent

# Beyond this reading pauses, until all of it was taken. One read brings up to 256 KiB more.
BUFFER_BYTES_MAX = 256 * 2**10


class Line(Protocol):
    """The connection that an answer comes by."""

    def pause(self) -> None:
        """Read no more for now."""
        ...

    def resume(self) -> None:
        """Read on."""
        ...

    def drop(self) -> None:
        """Close it at once."""
        ...


class Answer:
    """Made before its head has come; `send` hands it out afterwards. It is its own `chunks()`."""

    __slots__ = ("_is_wanted_whole", "_line", "_loop", "_reader", "_size", "_trouble", "_waiter")

    def __init__(self, line: Line, loop: asyncio.AbstractEventLoop) -> None:
        self._reader = ResponseReader()
        self._line: Line | None = line
        self._loop = loop
        self._waiter: asyncio.Future[None] | None = None
        self._trouble: UpstreamBroke | UpstreamSilent | None = None
        self._size = 0  # bytes that came and were not taken, framing included
        self._is_wanted_whole = False

    # --- the caller's side ---------------------------------------------------------------------

    @property
    def head(self) -> UpstreamHead:
        assert self._reader.head is not None
        return self._reader.head

    async def headed(self) -> None:
        """Wait for the head."""
        while self._reader.head is None:
            await self.news()

    async def read(self) -> bytes:
        self._is_wanted_whole = True
        if self._line is not None:
            self._line.resume()
        while True:
            if self._size > BODY_BYTES_MAX and sum(map(len, self._reader.parts)) > BODY_BYTES_MAX:
                self.drop()
                raise UpstreamBroke(f"the answer is larger than {BODY_BYTES_MAX} bytes")
            if self._reader.is_complete:
                return self._take()
            await self.news()

    def chunks(self) -> Answer:
        return self

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> bytes:
        while not self._reader.parts:
            if self._reader.is_complete:
                raise StopAsyncIteration
            await self.news()
        return self._take()

    async def close(self) -> None:
        self.drop()

    async def news(self) -> None:
        """Wait until something has come or was written. Raises what ended the connection."""
        if self._trouble is not None:
            raise self._trouble from None
        self._waiter = waiter = self._loop.create_future()
        try:
            await waiter
        except asyncio.CancelledError:
            self.drop()
            raise

    def drop(self) -> None:
        """Close the connection, unless the answer has come whole."""
        line, self._line = self._line, None
        if line is not None:
            self._trouble = UpstreamBroke("the call was given up")
            line.drop()

    def _take(self) -> bytes:
        parts = self._reader.parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self._size = 0
        if self._line is not None:
            self._line.resume()
        return data

    # --- the connection's side -----------------------------------------------------------------

    @property
    def has_head(self) -> bool:
        return self._reader.head is not None

    @property
    def is_reusable(self) -> bool:
        """Of the connection, once `put` said that the answer is complete."""
        return self._reader.is_reusable

    def put(self, data: bytes) -> bool:
        """Take what arrived. True at the end of the answer; UpstreamBroke: drop the connection."""
        reader = self._reader
        reader.feed(data)
        self._size += len(data)
        if reader.is_complete:
            self._line = None
        elif self._size > BUFFER_BYTES_MAX and not self._is_wanted_whole:
            assert self._line is not None
            self._line.pause()
        self.wake()
        return reader.is_complete

    def end(self, *, in_order: bool) -> None:
        """The server ended the connection. UpstreamBroke when the answer has not come whole."""
        self._reader.end(in_order=in_order)
        self._line = None
        self.wake()

    def fail(self, trouble: UpstreamBroke | UpstreamSilent) -> None:
        """Nothing more will come. What came before can still be taken."""
        self._line = None
        self._trouble = trouble
        self.wake()

    def wake(self) -> None:
        """Let the caller look again."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
