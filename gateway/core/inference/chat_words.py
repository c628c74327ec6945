"""The few events that the gateway itself writes into a chat's stream, in OpenAI's form.

SDKs raise the first as an API error and read the second as an ordinary end at the cap, so that no
client needs to know of the gateway.
"""

from __future__ import annotations

import msgspec

from gateway.core.inference.request import Closing
from gateway.core.refusal import Case
from gateway.core.rid import made_ms

_encode = msgspec.json.Encoder().encode


def broken_chunk(case: Case, message: str) -> bytes:
    """The error that ends a stream which was cut behind the gateway."""
    terms = case.value
    body = {"message": message, "type": terms.type, "param": None, "code": terms.code}
    return b"data: " + _encode({"error": body}) + b"\n\n"


def closing_chunks(closing: Closing) -> bytes:
    """Every choice ends at its cap, then the stream does."""
    choices: list[dict[str, object]] = [
        {"index": index, "delta": {}, "logprobs": None, "finish_reason": "length"}
        for index in range(closing.choices)
    ]
    chunk = {
        "id": closing.answer_id or f"chatcmpl-{closing.rid}",
        "object": "chat.completion.chunk",
        "created": made_ms(closing.rid) // 1000,
        "model": closing.model,
        "choices": choices,
    }
    return b"data: " + _encode(chunk) + b"\n\ndata: [DONE]\n\n"
