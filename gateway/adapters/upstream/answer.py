"""One answer on its way to whoever asked: fulfils ports.upstream.UpstreamAnswer.

The connection puts bytes in and the caller, one task, takes them out. What comes faster than it is
taken stops the reading (BUFFER_BYTES_MAX), so a slow client holds its own upstream back and nothing
else. A stream is handed on from within the connection's turn: a task that woke for each piece would
cost more than the piece. Once the answer has come whole it holds no connection any more. It knows
no HTTP.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from gateway.adapters.upstream.origin import BODY_BYTES_MAX
from gateway.adapters.upstream.reader import ResponseReader
from gateway.ports.upstream import Take, UpstreamBroke, UpstreamSilent

# Beyond this reading pauses, until all of it was taken. One read brings up to 256 KiB more.
BUFFER_BYTES_MAX = 256 * 2**10
_TOO_LARGE = f"the answer is larger than {BODY_BYTES_MAX} bytes"


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


class Answer(ResponseReader):
    """Made before its head has come; `send` hands it out afterwards."""

    __slots__ = (
        "_is_wanted_whole",
        "_line",
        "_loop",
        "_objection",
        "_size",
        "_take",
        "_trouble",
        "_waiter",
    )

    def __init__(self, line: Line, loop: asyncio.AbstractEventLoop) -> None:
        ResponseReader.__init__(self)
        self._line: Line | None = line
        self._loop = loop
        self._waiter: asyncio.Future[None] | None = None
        self._trouble: UpstreamBroke | UpstreamSilent | None = None
        self._size = 0  # bytes that came and were not taken, framing included
        self._is_wanted_whole = False
        self._take: Take | None = None  # who is handed what comes, while somebody pours
        self._objection: Exception | None = None  # what it raised

    # --- the caller's side ---------------------------------------------------------------------

    async def read(self) -> bytes:
        if not self.is_complete:
            await self._read_on()
        data = b"".join(self.parts)
        self.parts.clear()
        if len(data) > BODY_BYTES_MAX:
            raise UpstreamBroke(_TOO_LARGE)
        return data

    async def _read_on(self) -> None:
        """Wait for the whole body, however much it is within BODY_BYTES_MAX."""
        self._is_wanted_whole = True
        if self._line is not None:
            self._line.resume()
        try:
            while not self.is_complete:
                if self._size > BODY_BYTES_MAX and sum(map(len, self.parts)) > BODY_BYTES_MAX:
                    self.drop()
                    raise UpstreamBroke(_TOO_LARGE)
                await self.news()
        except asyncio.CancelledError:
            self.drop()
            raise

    async def pour(self, take: Take) -> bool:
        self._take = take
        try:
            while True:
                if self.parts and not take(self._what_came()):
                    return False
                if self.is_complete:
                    return True
                await self.news()
                objection, self._objection = self._objection, None
                if objection is not None:
                    raise objection
                if self._has_enough:
                    return False
        except asyncio.CancelledError:
            self.drop()
            raise
        finally:
            self._take = None

    @property
    def _has_enough(self) -> bool:
        """`take` wants no more."""
        return self._take is None

    def _what_came(self) -> bytes:
        """While nobody poured."""
        data = b"".join(self.parts)
        self.parts.clear()
        if self._size > BUFFER_BYTES_MAX and self._line is not None:
            self._line.resume()
        self._size = 0
        return data

    async def close(self) -> None:
        if self._line is not None:
            self.drop()

    def news(self) -> asyncio.Future[None]:
        """To wait until something has come or was written. Raises what ended the connection."""
        if self._trouble is not None:
            raise self._trouble from None
        self._waiter = waiter = self._loop.create_future()
        return waiter

    def drop(self) -> None:
        """Close the connection, unless the answer has come whole."""
        line, self._line = self._line, None
        if line is not None:
            self._trouble = UpstreamBroke("the call was given up")
            line.drop()

    # --- the connection's side -----------------------------------------------------------------

    def put(self, data: bytes) -> None:
        """Take what arrived. UpstreamBroke: drop the connection."""
        self.feed(data)
        if self.is_complete:
            self._line = None
        if self._take is not None:
            self._pass_on(self._take)
            return
        if not self.is_complete:
            self._size += len(data)
            if self._size > BUFFER_BYTES_MAX and not self._is_wanted_whole:
                assert self._line is not None
                self._line.pause()
        self.wake()

    def _pass_on(self, take: Take) -> None:
        """Wake the caller only for the end, or for what `take` says."""
        if self.parts:
            data = b"".join(self.parts)  # of a single one that is the part itself
            self.parts.clear()
            try:
                if not take(data):
                    self._take = None
            except Exception as error:
                self._take, self._objection = None, error
        if self._take is None or self.is_complete:
            self.wake()

    def end(self, *, in_order: bool) -> None:
        """The server ended the connection. UpstreamBroke when the answer has not come whole."""
        super().end(in_order=in_order)
        self._line = None
        self.wake()

    def fail(self, trouble: UpstreamBroke | UpstreamSilent) -> None:
        """Nothing more will come. What came before can still be taken."""
        self._line = None
        self._trouble = trouble
        self.wake()

    def wake(self) -> None:
        """Let the caller look again."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
