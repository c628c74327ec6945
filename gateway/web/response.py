"""Answers as they are written: a whole one in a single call to the transport, a stream by chunks.

aiohttp's own response classes write head and body apart and look at every header again; these do
what a proxy needs and no more. Framing follows RFC 9112: a length where the body is known, chunks
where it is not, and the end of the connection for a client of HTTP/1.0. Nothing is compressed.
"""

from __future__ import annotations

import time
from email.utils import formatdate
from http import HTTPStatus

from aiohttp.http import HttpVersion11

from gateway.web.connection import connection_of
from gateway.web.http_request import HttpRequest

Header = tuple[str, str]

_PAIR = ": ".join
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_OK = "HTTP/1.1 200 OK\r\n"
# One copy of the body costs less than a second system call, up to about this size.
_JOINED_BYTES_MAX = 65_536
_WITHOUT_BODY = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)


class _Date:
    """The `Date` header, made once a second."""

    def __init__(self) -> None:
        self._at_s = 0
        self._line = ""

    def line(self) -> str:
        now_s = int(time.time())
        if now_s != self._at_s:
            self._at_s, self._line = now_s, f"Date: {formatdate(now_s, usegmt=True)}"
        return self._line


_date = _Date()


def _head(request: HttpRequest, status: int, headers: list[Header], may_stay: bool) -> str:
    """Status line and headers, without the framing and the blank line after them. `may_stay`: the
    connection can be used again, if the client likes."""
    lines = [_date.line(), *map(_PAIR, headers)]
    said = "".join(lines)
    if "\n" in said or "\r" in said:
        raise ValueError("a line break in a header of an answer")
    text = "\r\n".join(lines)
    is_11, keep_alive = request.version == HttpVersion11, may_stay and request.keep_alive
    if keep_alive != is_11:  # said where it is not what the version means anyway
        text += f"\r\nConnection: {'keep-alive' if keep_alive else 'close'}"
    first = _OK if is_11 and status == HTTPStatus.OK else _status_line(is_11, status)
    return first + text


def _status_line(is_11: bool, status: int) -> str:
    return f"HTTP/1.{is_11:d} {status} {_PHRASES.get(status, '')}\r\n"


class Whole:
    """An answer whose body is known. `is_last`: the connection ends with it."""

    def __init__(self, status: int, headers: list[Header], body: bytes = b"") -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.is_last = False

    async def send(self, request: HttpRequest) -> None:
        """Write all of it. ConnectionError when the client is gone."""
        head = _head(request, self.status, self.headers, not self.is_last)
        body = b"" if request.method == "HEAD" else self.body
        if self.status not in _WITHOUT_BODY:
            head = f"{head}\r\nContent-Length: {len(self.body)}"
        connection = connection_of(request)
        if len(body) <= _JOINED_BYTES_MAX:
            connection.send(f"{head}\r\n\r\n".encode() + body)
        else:
            connection.send(f"{head}\r\n\r\n".encode())
            connection.send(body)
            await connection.drained()


def unasked(answer: Whole) -> bytes:
    """An answer to a client that asked nothing yet, after which its connection ends."""
    lines = [_status_line(True, answer.status)[:-2], *map(_PAIR, answer.headers)]
    lines += ["Connection: close", f"Content-Length: {len(answer.body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + answer.body


class Streamed:
    """An answer whose body comes in pieces: `begin`, then `push` as often as needed, then `end`.

    Each raises ConnectionError when the client is gone.
    """

    def __init__(self, request: HttpRequest, status: int, headers: list[Header]) -> None:
        self.status = status
        self._to = connection_of(request)
        self._in_chunks = request.version >= HttpVersion11
        self.is_last = not self._in_chunks
        framing = "\r\nTransfer-Encoding: chunked" if self._in_chunks else ""
        self._head = f"{_head(request, status, headers, self._in_chunks)}{framing}\r\n\r\n"

    async def begin(self) -> None:
        """Send the head."""
        self._to.send(self._head.encode())
        self._to.in_answer = True

    def push(self, data: bytes) -> bool:
        """Send a piece. False: the client lags behind, so let it catch up first."""
        if data:  # an empty chunk would be the end
            self._to.send(b"%x\r\n%b\r\n" % (len(data), data) if self._in_chunks else data)
        return not self._to.writing_paused

    async def caught_up(self) -> None:
        """Wait for a client that lags behind."""
        await self._to.drained()

    async def end(self) -> None:
        """Send what says that it was all."""
        if self._in_chunks:
            self._to.send(b"0\r\n\r\n")
        self._to.in_answer = False

    async def send(self, request: HttpRequest) -> None:
        """It was written on its way. What did not come to its end must not look as if it had."""
        if self._to.in_answer:
            self._to.cut()
            raise ConnectionResetError("the answer did not come to its end")


Response = Whole | Streamed
