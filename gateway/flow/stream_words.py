"""The few events that the gateway itself writes into a stream, in OpenAI's form.

SDKs raise the first as an API error and read the second as an ordinary end at the cap, so that no
client needs to know of the gateway.
"""

from __future__ import annotations

import msgspec

from gateway.core.hold import Hold
from gateway.core.refusal import Case
from gateway.ports.upstream import UpstreamSilent

_encode = msgspec.json.Encoder().encode


def broken_event(error: Exception) -> bytes:
    """Tells a client that its stream was cut behind the gateway: SDKs raise it as an API error."""
    silent = isinstance(error, UpstreamSilent)
    terms = (Case.UPSTREAM_TIMEOUT if silent else Case.UPSTREAM_UNAVAILABLE).value
    message = (
        "The model's service went silent in the middle of the answer."
        if silent
        else "The model's service broke off in the middle of the answer."
    )
    body = {"message": message, "type": terms.type, "param": None, "code": terms.code}
    return b"data: " + _encode({"error": body}) + b"\n\n"


def closing_events(completion_id: str | None, hold: Hold) -> bytes:
    """Ends a stream whose hold is over as a model ends one that reached its cap."""
    choices: list[dict[str, object]] = [
        {"index": index, "delta": {}, "logprobs": None, "finish_reason": "length"}
        for index in range(hold.choices)
    ]
    chunk = {
        "id": completion_id or f"chatcmpl-{hold.rid}",
        "object": "chat.completion.chunk",
        "created": int(hold.rid.replace("-", "")[:12], 16) // 1000,  # the rid's own milliseconds
        "model": hold.model,
        "choices": choices,
    }
    return b"data: " + _encode(chunk) + b"\n\ndata: [DONE]\n\n"
