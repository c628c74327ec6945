"""One call's answer over HTTP: what the flow says of it, as status line, headers and framing.

A client that leaves is told to the flow as ClientGone. What an answer means is decided there.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.idempotency import Remembered
from gateway.ports.answer import AnswerHead, ClientGone
from gateway.web.connection import connection_of
from gateway.web.cors import Cors
from gateway.web.http_request import HttpRequest
from gateway.web.quota_headers import answer_headers, replay_headers
from gateway.web.request_id import answer_to
from gateway.web.response import Response, Streamed, Whole

GONE = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)
"""What writing to a client that has left raises."""

_NOTHING_SAID = Whole(500, [])
_NOT_KEPT = ("Cache-Control", "no-cache")


class HttpAnswer:
    """Fulfils ports.answer.RepeatableAnswer for one request."""

    def __init__(self, request: HttpRequest, cors: Cors, thresholds_percent: Sequence[int]) -> None:
        self._request = request
        self._cors = cors
        self._thresholds_percent = thresholds_percent
        self._stream: Streamed | None = None
        self.response: Response = _NOTHING_SAID

    @property
    def has_begun(self) -> bool:
        """True once the head of a stream may be with the client."""
        return self._stream is not None

    async def whole(self, head: AnswerHead, body: bytes) -> None:
        self.response = Whole(head.status, answer_headers(head, self._thresholds_percent), body)

    async def replay(self, first: Remembered) -> None:
        self.response = Whole(first.status, replay_headers(first), first.body)

    async def begin(self, head: AnswerHead) -> None:
        headers = [
            *answer_to(answer_headers(head, self._thresholds_percent), self._request),
            _NOT_KEPT,
            *self._cors.headers(self._request),
        ]
        self.response = self._stream = Streamed(self._request, head.status, headers)
        try:
            await self._stream.begin()
        except GONE as error:
            raise ClientGone from error

    def push(self, data: bytes) -> bool:
        assert self._stream is not None, "a stream is written after its head"
        try:
            return self._stream.push(data)
        except GONE as error:
            raise ClientGone from error

    async def caught_up(self) -> None:
        try:
            await self._begun().caught_up()
        except GONE as error:
            raise ClientGone from error

    async def end(self) -> None:
        try:
            await self._begun().end()
        except GONE as error:
            raise ClientGone from error

    def missed(self, data: bytes) -> None:
        """A client that has left misses nothing more by it."""

    def came_whole(self) -> None:
        """The framing says so already."""

    def cut(self) -> None:
        """Drop the connection, so that the client sees that the answer is not whole."""
        connection_of(self._request).cut()

    def _begun(self) -> Streamed:
        if self._stream is None:
            raise AssertionError("a stream is written after its head")
        return self._stream
