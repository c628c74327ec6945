"""One connection to an upstream, and the one call that is on it.

It goes back to its pool only after an answer that leaves no doubt: read to its end, the request
written to its end, nothing behind it, and no wish of the server to close. In every other case it is
closed. A request is written here once; nothing repeats it.
"""

from __future__ import annotations

import asyncio
import select
import ssl
from typing import Protocol, cast

from gateway.adapters.upstream.answer import Answer
from gateway.adapters.upstream.origin import KEEP_S
from gateway.adapters.upstream.wheel import Wheel, turns
from gateway.ports.upstream import UpstreamBroke, UpstreamSilent

# A request up to here leaves in one write; a larger one in pieces, as fast as the server reads.
PIECE_BYTES = 64 * 2**10
_KEEP_TURNS = turns(KEEP_S)


class Home(Protocol):
    """Where a connection waits for its next call."""

    def keep(self, connection: Connection) -> None:
        """It is free."""
        ...

    def forget(self, connection: Connection) -> None:
        """It is of no use any more, whether it was kept or not."""
        ...

    def refuse(self, trouble: UpstreamBroke) -> None:
        """What it brought was no answer as it ought to be; an operator may want to know."""
        ...


class Connection(asyncio.Protocol):
    """Open from `connection_made` on. At most one call at a time uses it."""

    def __init__(self, home: Home, wheel: Wheel, idle_s: float) -> None:
        self._home = home
        self._wheel = wheel
        self._idle_s = idle_s
        self._idle_turns = turns(idle_s)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._answer: Answer | None = None
        self._heard_turn = wheel.turn
        self._is_paused = False
        self._is_full = False  # the transport takes no more bytes for now
        self._is_whole = True  # the request was written to its end

    # --- the caller's side ---------------------------------------------------------------------

    @property
    def is_usable(self) -> bool:
        """Whether a call may be written to it, as far as anyone can know.

        The loop may not have come to read yet that the server closed it; so one that waited for
        some time is looked at once more. What is under way from the server then, nobody sees.
        """
        if self._transport.is_closing():
            return False
        if self._heard_turn == self._wheel.turn:
            return True
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    def ask(self, head: bytes, body: bytes) -> Answer:
        """Write a request. A body larger than PIECE_BYTES is left to `write_pieces`."""
        self._answer = answer = Answer(self, self._loop)
        self._heard_turn = self._wheel.turn
        if len(body) <= PIECE_BYTES:
            self._transport.write(head + body)
        else:
            self._is_whole = False
            self._transport.write(head)
        return answer

    async def write_pieces(self, answer: Answer, body: memoryview) -> None:
        """Write as the server reads. One that refuses meanwhile is told no more; one that answers
        while it reads has the rest left to the transport."""
        for start in range(0, len(body), PIECE_BYTES):
            while self._is_full and not answer.has_head:
                await answer.news()
            if answer.has_head:
                if answer.head.status >= 300:
                    return
                self._transport.write(body[start:])
                break
            self._transport.write(body[start : start + PIECE_BYTES])
        self._is_whole = True

    def drop(self) -> None:
        """Close it at once; what is on it was given up."""
        self._answer = None
        self._home.forget(self)
        self._transport.abort()

    def break_off(self, trouble: UpstreamBroke | UpstreamSilent) -> None:
        """Close it at once, and tell the call that is on it why."""
        answer = self._answer
        self.drop()
        if answer is not None:
            answer.fail(trouble)

    # --- reading and waiting -------------------------------------------------------------------

    def pause(self) -> None:
        """Read no more for now."""
        if not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._is_paused:
            self._is_paused = False
            self._heard_turn = self._wheel.turn
            self._transport.resume_reading()

    def look(self) -> None:
        """Drop it when it was of no use, or the server silent, for too long (see Wheel)."""
        quiet_turns = self._wheel.turn - self._heard_turn
        if self._answer is None:
            if quiet_turns >= _KEEP_TURNS:
                self.drop()
        elif quiet_turns >= self._idle_turns and not self._is_paused:
            self.break_off(UpstreamSilent(f"nothing came for {self._idle_s:g} s"))

    # --- the event loop's side -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not, by their class
        self._wheel.watched.add(self)

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:  # nobody asked
            self.drop()
            return
        self._heard_turn = self._wheel.turn
        try:
            answer.put(data)
        except UpstreamBroke as trouble:
            self._home.refuse(trouble)
            self.break_off(trouble)
            return
        if answer.is_complete:
            self._release(answer)

    def _release(self, answer: Answer) -> None:
        self._answer = None
        is_written = self._is_whole and not self._transport.get_write_buffer_size()
        if is_written and answer.is_reusable:
            if self._is_paused:
                self.resume()
            self._home.keep(self)
        else:
            self.drop()

    def eof_received(self) -> None:
        """The server will send no more; `connection_lost` follows."""
        answer, self._answer = self._answer, None
        self._home.forget(self)
        if answer is not None:
            try:
                answer.end(in_order=self._was_ended_in_order())
            except UpstreamBroke as trouble:
                answer.fail(trouble)

    def _was_ended_in_order(self) -> bool:
        """With TLS an end is the server's word, or anybody could cut what it says short.

        asyncio reports both ends alike, but behind the word (close_notify) there is nothing to be
        read, and without it there may yet be (RFC 8446, 6.1).
        """
        tls = self._transport.get_extra_info("ssl_object")
        if tls is None:
            return True
        try:
            return not tls.read(1)
        except ssl.SSLError:
            return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._wheel.watched.discard(self)
        self._home.forget(self)
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.fail(UpstreamBroke("the connection was lost before the answer ended"))

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._heard_turn = self._wheel.turn
        if self._answer is not None:
            self._answer.wake()
