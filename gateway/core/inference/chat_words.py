"""The few events that the gateway itself writes into a stream of a chat or a completion.

They have OpenAI's form: SDKs raise the first as an API error and read the second as an ordinary end
at the cap, so that no client needs to know of the gateway.
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
    """Every choice of a chat ends at its cap, then the stream does."""
    return _closing(closing, ("chatcmpl", "chat.completion.chunk"), {"delta": {}})


def closing_texts(closing: Closing) -> bytes:
    """The same for a completion."""
    return _closing(closing, ("cmpl", "text_completion"), {"text": ""})


def _closing(closing: Closing, kind: tuple[str, str], nothing: dict[str, object]) -> bytes:
    """`kind`: how ids begin, and what the chunk is. `nothing`: a choice that writes no more."""
    choices: list[dict[str, object]] = [
        {"index": index, **nothing, "logprobs": None, "finish_reason": "length"}
        for index in range(closing.choices)
    ]
    chunk = {
        "id": closing.answer_id or f"{kind[0]}-{closing.rid}",
        "object": kind[1],
        "created": made_ms(closing.rid) // 1000,
        "model": closing.model,
        "choices": choices,
    }
    return b"data: " + _encode(chunk) + b"\n\ndata: [DONE]\n\n"
