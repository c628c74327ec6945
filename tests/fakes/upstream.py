"""An upstream that answers as it was told, piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from gateway.ports.upstream import Take, UpstreamAnswer, UpstreamCall, UpstreamHead

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
        self._rest = iter(pieces)
        self._head = UpstreamHead(status, content_type, retry_after, "req_up", relayed)
        self.given = 0
        self.closed = 0

    @property
    def head(self) -> UpstreamHead:
        return self._head

    async def read(self) -> bytes:
        return b"".join([data async for data in chunks(self)])

    async def pour(self, take: Take) -> bool:
        for piece in self._rest:
            self.given += 1
            if isinstance(piece, asyncio.Event):
                await piece.wait()
            elif isinstance(piece, Exception):
                raise piece
            else:
                await self.arrives()
                if not take(piece):
                    return False
        return True

    async def arrives(self) -> None:
        """What a piece takes on its way."""

    async def close(self) -> None:
        self.closed += 1


async def chunks(answer: UpstreamAnswer) -> AsyncIterator[bytes]:
    """What comes, each piece when it is asked for."""
    come: list[bytes] = []

    def take(data: bytes) -> bool:
        come.append(data)
        return False

    while not await answer.pour(take):
        yield come.pop()


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
