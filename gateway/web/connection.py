"""One connection of a client to the proxy port: aiohttp's, less what this port does not need.

aiohttp reads and parses, holds back clients that send too fast, and closes silent connections. Its
way of answering makes a task, a writer and a log record for each request; here the connection's one
task answers in turn, and each piece of an answer is one call to the transport. What an answer says
is not known here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import ERROR

from gateway.core.refusal import Case, Refused
from gateway.web.crowd import Crowd
from gateway.web.http_request import HttpRequest
from gateway.web.patience import Patience

_log = logging.getLogger("gateway.http")
# Who takes less than this while it is waited for does not read: 16 KiB in 30 s is 4 kbit/s.
_READ_BYTES_MIN = 16_384
_LATE: Any = object()  # stands in the queue for a head that did not come in time


class Sendable(Protocol):
    """An answer that can be sent; `is_last`: the connection ends with it."""

    is_last: bool

    async def send(self, request: HttpRequest) -> None:
        """Write what is not written yet. ConnectionError when the client is gone."""
        ...


Handle = Callable[[HttpRequest], Awaitable[Sendable]]


@dataclass(frozen=True, slots=True)
class Shared:
    """What the connections of one port have in common.

    `requests` waits for heads and bodies that did not come at once, and tells `late`; `readers`
    waits for clients that take too little of what was sent, and tells `left_unread`. `too_many` is
    what a connection is told that `crowd` does not let in.
    """

    handle: Handle
    not_http: Sendable
    too_slow: Sendable
    requests: Patience[Connection]
    readers: Patience[Connection]
    crowd: Crowd
    too_many: bytes


class Connection(web.RequestHandler):
    """Answers requests as `shared` says.

    `in_answer`: a head was sent whose answer is not complete yet.
    """

    __slots__ = ("_is_late", "_peer", "_shared", "_unread_bytes", "in_answer")

    def __init__(self, server: web.Server, shared: Shared, **kept: Any) -> None:
        super().__init__(server, **kept)
        self._shared = shared
        self._is_late = False
        self._peer: str | None = None  # as long as it counts in the crowd
        self._unread_bytes = 0
        self.in_answer = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """One connection too many is told so, and is nobody's from then on."""
        peer = str((transport.get_extra_info("peername") or ("",))[0])
        if self._shared.crowd.enter(peer):
            self._peer = peer
            super().connection_made(transport)
        elif isinstance(transport, asyncio.WriteTransport):
            transport.write(self._shared.too_many)
            transport.close()

    def data_received(self, data: bytes) -> None:
        """A head that comes in parts has its time from its first part on. (One whose first part
        came together with a whole request is bounded as silence is.)"""
        if self._peer is None:
            return  # it was turned away
        super().data_received(data)
        if self._waiter is not None and data and not self._messages:
            self._shared.requests.begin(self)

    def late(self) -> None:
        """The request did not come in time: it is refused, and the connection ends with that."""
        request = self._current_request
        if self._waiter is not None and not self._waiter.done():
            self._messages.append((_LATE, EMPTY_PAYLOAD))
            self._waiter.set_result(None)
        elif request is not None and not request.content.is_eof():
            self._is_late = True
            request.content.set_exception(too_slow())

    def send(self, data: bytes) -> None:
        """Hand bytes to the kernel, or to a buffer behind it. ConnectionResetError when the client
        is gone."""
        transport = self.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        transport.write(data)

    def pause_writing(self) -> None:
        """Much is unread: from now on the client must read."""
        super().pause_writing()
        self._wait_for_reader()

    def resume_writing(self) -> None:
        """It has read."""
        super().resume_writing()
        self._shared.readers.end(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """What is unread will not be read any more."""
        if self._peer is None:
            return
        self._shared.crowd.leave(self._peer)
        self._peer = None
        self._shared.readers.end(self)
        super().connection_lost(exc)

    def left_unread(self) -> None:
        """A client that took too little in its time counts as one that left."""
        transport = self.transport
        if transport is None:
            return
        if self._unread_bytes - transport.get_write_buffer_size() >= _READ_BYTES_MIN:
            self._wait_for_reader()
        else:
            _log.info("a client does not read and is dropped: %s", self.peername)
            transport.abort()

    def _wait_for_reader(self) -> None:
        if self.transport is not None:
            self._unread_bytes = self.transport.get_write_buffer_size()
            self._shared.readers.begin(self)

    async def drained(self) -> None:
        """Returns once the client has taken enough of what was sent; ConnectionResetError if it
        leaves first, for which aiohttp has an error of its own or none."""
        if not self.writing_paused:
            return
        try:
            await self._drain_helper()
        except ConnectionError as error:
            raise ConnectionResetError("the client is gone") from error
        if self.transport is None:
            raise ConnectionResetError("the client is gone")

    def cut(self) -> None:
        """Drop the connection, so that the client sees that the answer is not whole."""
        if self.transport is not None:
            self.transport.abort()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """aiohttp asks for this with every body that was read, also where nothing is held back."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    async def start(self) -> None:
        """Answer requests until the connection ends. In place of aiohttp's own."""
        try:
            while not self._force_close and not self._close:
                if not self._messages:
                    await self._next_message()
                message, payload = self._messages.popleft()
                if self._parser is not None:
                    self._parser.message_consumed()
                if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
                    self._resume_reading_if_drained()
                if not await self._answer(message, payload):
                    break
                self._begin_silence()
        finally:
            self._task_handler = None
            if self.transport is not None:
                self.transport.close()

    async def _next_message(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
            self._shared.requests.end(self)

    def _begin_silence(self) -> None:
        """From now on, so long and no longer may the client say nothing."""
        until_s = self._loop.time() + self._keepalive_timeout
        self._next_keepalive_close_time = until_s
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(until_s, self._process_keepalive)

    async def _answer(self, message: RawRequestMessage | object, payload: StreamReader) -> bool:
        """False: the connection is not to be used any more."""
        if not isinstance(message, RawRequestMessage):  # then it says what was wrong
            await self._refusal_of(message).send(HttpRequest(ERROR, payload, self))
            return False
        request: Any = HttpRequest(message, payload, self)  # aiohttp's class for it is another
        self._request_in_progress = True
        self._current_request = request
        if not payload.is_eof():
            self._shared.requests.begin(self)
        try:
            answer = await self._shared.handle(request)
            # Upgraded to nothing: what comes after it is not HTTP.
            answer.is_last |= self._upgraded or self._is_late
            await answer.send(request)
        except ConnectionError:
            return False
        except Exception:
            _log.exception("a request could not be answered")
            self.cut()
            return False
        finally:
            self._shared.requests.end(self)
            self._current_request = None
            self._request_in_progress = False
            if self._handler_waiter is not None:  # somebody waits to shut down
                self._handler_waiter.set_result(None)
        if answer.is_last or not request.keep_alive:
            return False
        return payload.is_eof() or await self._rest_is_read(payload)

    def _refusal_of(self, message: object) -> Sendable:
        if message is _LATE:
            return self._shared.too_slow
        error = getattr(message, "exc", None)
        _log.info("not HTTP, from %s: %s", self.peername, type(error).__name__)
        return self._shared.not_http

    async def _rest_is_read(self, payload: StreamReader) -> bool:
        """Let a client that was refused send its body to the end, within bounds: most read an
        answer only then."""
        try:
            async with asyncio.timeout(self._lingering_time):
                while not payload.is_eof():
                    await payload.readany()
        except (TimeoutError, OSError, web.RequestPayloadError):
            return False
        return True


def too_slow() -> Refused:
    """What is said to a client whose request did not come in time."""
    return Refused(Case.REQUEST_TIMEOUT, "The request did not arrive in time. Send it again.")


def too_many() -> Refused:
    """What is said to a client that comes when there are enough."""
    message = "The gateway has as many connections as it may have. Try again in a moment."
    return Refused(Case.TOO_MANY_CONNECTIONS, message, retry_after_s=1)


def connection_of(request: HttpRequest) -> Connection:
    """The connection on which a request came."""
    connection = request.protocol
    if not isinstance(connection, Connection):
        raise TypeError("the proxy port is served by Connection")
    return connection
