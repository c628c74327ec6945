"""A client that remembers what it got, and that may leave at any moment."""

from __future__ import annotations

from gateway.core.idempotency import Remembered
from gateway.ports.answer import AnswerHead, ClientGone


class RecordedAnswer:
    """Fulfils ports.answer.RepeatableAnswer. The client is gone from its `gone_at`-th call on (0 is
    `begin`).

    `journal` is shared with the store: it tells what happened before what.
    """

    def __init__(self, journal: list[str] | None = None, gone_at: int | None = None) -> None:
        self.journal = journal if journal is not None else []
        self._gone_at = gone_at
        self._calls = 0
        self.head: AnswerHead | None = None
        self.written: list[bytes] = []
        self.ended = False
        self.missing: list[bytes] = []
        self.is_whole = False
        self.replayed: Remembered | None = None

    @property
    def body(self) -> bytes:
        return b"".join(self.written)

    async def whole(self, head: AnswerHead, body: bytes) -> None:
        self._call("whole")
        self.head = head
        self.written.append(body)
        self.ended = True

    async def begin(self, head: AnswerHead) -> None:
        self._call("begin")
        self.head = head

    def push(self, data: bytes) -> bool:
        self._call("write")
        self.written.append(data)
        return True

    async def caught_up(self) -> None: ...

    async def end(self) -> None:
        self._call("end")
        self.ended = True

    def missed(self, data: bytes) -> None:
        self.missing.append(data)

    def came_whole(self) -> None:
        self.is_whole = True

    async def replay(self, first: Remembered) -> None:
        self._call("replay")
        self.replayed = first
        self.written.append(first.body)
        self.ended = True

    def _call(self, name: str) -> None:
        self._calls += 1
        if self._gone_at is not None and self._calls > self._gone_at:
            self.journal.append("gone")
            raise ClientGone
        self.journal.append(name)
