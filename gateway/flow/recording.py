"""An answer that is kept while it goes to its client, so that a repetition can have it again.

Everything passes on unchanged and at once, but for the end of a stream, which waits until the
answer is kept. What is recorded is bounded; a larger answer passes and is not kept.
"""

from __future__ import annotations

from contextlib import suppress

from msgspec import structs

from gateway.core.idempotency import Remembered
from gateway.ports.answer import Answer, AnswerHead, ClientGone


class RecordingAnswer:
    """Fulfils ports.answer.Answer around another."""

    def __init__(self, answer: Answer, bytes_max: int) -> None:
        self._answer = answer
        self._bytes_left = bytes_max
        self._head: AnswerHead | None = None
        self._parts: list[bytes] = []
        self._is_whole = False
        self._has_ended = False

    async def whole(self, head: AnswerHead, body: bytes) -> None:
        self._head = head
        self._record(body)
        self._is_whole = True
        await self._answer.whole(head, body)

    async def begin(self, head: AnswerHead) -> None:
        self._head = head
        await self._answer.begin(head)

    def push(self, data: bytes) -> bool:
        self._record(data)
        return self._answer.push(data)

    async def caught_up(self) -> None:
        await self._answer.caught_up()

    def missed(self, data: bytes) -> None:
        self._record(data)

    def came_whole(self) -> None:
        self._is_whole = True

    async def end(self) -> None:
        self._has_ended = True

    async def finish(self) -> None:
        """Let the end of a stream go out, if it has come."""
        if self._has_ended:
            with suppress(ClientGone):
                await self._answer.end()

    def remembered(self, running: Remembered) -> Remembered | None:
        """What `running` has become. None: nothing was charged, so a repetition is a new call."""
        head = self._head
        if head is None or head.status >= 300:
            return None
        if not self._is_whole or self._bytes_left < 0:
            return structs.replace(running, state="not_kept")
        return structs.replace(
            running,
            state="kept",
            status=head.status,
            content_type=head.content_type,
            body=b"".join(self._parts),
        )

    def _record(self, data: bytes) -> None:
        self._bytes_left -= len(data)
        if self._bytes_left >= 0:
            self._parts.append(data)
        else:
            self._parts.clear()
