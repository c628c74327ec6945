"""The canary's upstream: answers inside the process, costs nobody anything.

By the cap that a call was sent with: the one that spends is answered with that usage, every other
with an error of the kind that is not charged. Refuses to know who asks, and why.
"""

from __future__ import annotations

import msgspec

from gateway.core.canary import MODEL, NO_CHARGE, SPENDS_TOKENS
from gateway.ports.upstream import Take, UpstreamCall, UpstreamHead

_FREE = b'{"error": {"message": "not charged", "type": "canary", "code": "canary"}}'


class _Asked(msgspec.Struct):
    max_completion_tokens: int


class _Answer:
    """Fulfils ports.upstream.UpstreamAnswer."""

    def __init__(self, status: int, body: bytes) -> None:
        self.head = UpstreamHead(status, "application/json", None, None, ())
        self._body = body

    async def read(self) -> bytes:
        return self._body

    async def pour(self, take: Take) -> bool:
        return take(self._body)

    async def close(self) -> None:
        """There is no connection."""


class CanaryUpstream:
    """Fulfils ports.upstream.Upstream."""

    async def send(self, call: UpstreamCall) -> _Answer:
        asked = msgspec.json.decode(call.body, type=_Asked)
        if asked.max_completion_tokens != SPENDS_TOKENS:
            return _Answer(NO_CHARGE, _FREE)
        return _Answer(200, _spent())


def _spent() -> bytes:
    message = {"role": "assistant", "content": "spent"}
    return msgspec.json.encode(
        {
            "id": "canary",
            "object": "chat.completion",
            "created": 0,
            "model": MODEL,
            "choices": [{"index": 0, "message": message, "finish_reason": "length"}],
            "usage": {
                "prompt_tokens": 1,
                "completion_tokens": SPENDS_TOKENS,
                "total_tokens": 1 + SPENDS_TOKENS,
            },
        }
    )
