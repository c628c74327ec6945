"""The client's side of the proxy: where an answer goes.

The flow says what an answer means; status lines, headers and framing are made behind this port. A
client that leaves is an ordinary ending, told by ClientGone.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from gateway.core.idempotency import Remembered
from gateway.core.refusal import QuotaView
from gateway.ports.metrics import Decision


class ClientGone(Exception):
    """The client has left; nothing more can be written."""


class AnswerHead(msgspec.Struct, frozen=True, gc=False):
    """What an admitted call's answer says of itself, before it becomes HTTP.

    `charged_tokens` is None while it is not known (a stream); `output_cap_tokens` is None unless
    the cap was lowered to fit; `relayed` are upstream's headers that may pass.
    """

    rid: str
    status: int
    content_type: str
    quota: QuotaView
    relayed: tuple[tuple[str, str], ...] = ()
    retry_after: str | None = None
    charged_tokens: int | None = None
    output_cap_tokens: int | None = None
    decision: Decision = "admitted"


class Answer(Protocol):
    """One answer, either whole or as a stream. All writing may raise ClientGone."""

    async def whole(self, head: AnswerHead, body: bytes) -> None: ...

    async def begin(self, head: AnswerHead) -> None:
        """Send the head of a stream."""
        ...

    def push(self, data: bytes) -> bool:
        """Send a piece of a stream. False: the client lags behind, so let it catch up first."""
        ...

    async def caught_up(self) -> None:
        """Wait for a client that lags behind."""
        ...

    async def end(self) -> None: ...

    def missed(self, data: bytes) -> None:
        """What would have been written to a client that has left."""
        ...

    def came_whole(self) -> None:
        """Nothing is missing in what was written and missed of a stream."""
        ...


class RepeatableAnswer(Answer, Protocol):
    """One that may instead be what the call was answered before."""

    async def replay(self, first: Remembered) -> None: ...
