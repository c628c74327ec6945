"""An upstream that answers as it was told, piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from gateway.ports.upstream import UpstreamCall, UpstreamHead

Piece = bytes | Exception | asyncio.Event
"""Bytes are sent, an exception is raised, an event is waited for."""


class ScriptedAnswer:
    """Fulfils ports.upstream.UpstreamAnswer. `given` counts the pieces that were taken."""

    def __init__(
        self,
        pieces: Sequence[Piece],
        status: int = 200,
        content_type: str = "application/json",
        relayed: tuple[tuple[str, str], ...] = (),
        retry_after: str | None = None,
    ) -> None:
        self._pieces = pieces
        self._head = UpstreamHead(status, content_type, retry_after, "req_up", relayed)
        self.given = 0
        self.closed = 0

    @property
    def head(self) -> UpstreamHead:
        return self._head

    async def read(self) -> bytes:
        return b"".join([data async for data in self.chunks()])

    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            self.given += 1
            if isinstance(piece, asyncio.Event):
                await piece.wait()
            elif isinstance(piece, Exception):
                raise piece
            else:
                yield piece

    async def close(self) -> None:
        self.closed += 1


def stream(*pieces: Piece) -> ScriptedAnswer:
    """An answer of server-sent events."""
    return ScriptedAnswer(pieces, content_type="text/event-stream; charset=utf-8")


class ScriptedUpstream:
    """Fulfils ports.upstream.Upstream: one answer or error a call, in order."""

    def __init__(self, *answers: ScriptedAnswer | Exception) -> None:
        self.answers = list(answers)
        self.calls: list[UpstreamCall] = []

    async def send(self, call: UpstreamCall) -> ScriptedAnswer:
        self.calls.append(call)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer
