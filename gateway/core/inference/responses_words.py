"""The few events that the gateway itself writes into a stream of /responses, in OpenAI's form.

SDKs raise the first as an API error and read the second as an ordinary end at the cap, so that no
client needs to know of the gateway.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.core.inference.request import Closing
from gateway.core.refusal import Case
from gateway.core.rid import made_ms

_encode = msgspec.json.Encoder().encode


def broken_event(case: Case, message: str, events: int) -> bytes:
    """The error that ends a stream which was cut behind the gateway.

    It stands there twice: flat as OpenAI documents it, and nested as OpenAI sends it. The Python
    client raises only for the nested one (openai 3.54.0, `_streaming.py`), the JavaScript client
    for the event's name (openai 7.57.0, `core/streaming.js`).
    """
    terms = case.value
    said = {"code": terms.code, "message": message, "param": None}
    return _event("error", events, {**said, "error": {"type": terms.type, **said}})


def closing_event(closing: Closing) -> bytes:
    """The answer ends at its cap. What it has written so far is with the client only."""
    response = {
        "id": closing.answer_id or f"resp_{closing.rid}",
        "object": "response",
        "created_at": made_ms(closing.rid) // 1000,
        "status": "incomplete",
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"},
        "instructions": None,
        "metadata": {},
        "model": closing.model,
        "output": [],
        "parallel_tool_calls": True,
        "temperature": None,
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "usage": None,
    }
    return _event("response.incomplete", closing.events, {"response": response})


def _event(kind: str, events: int, fields: dict[str, Any]) -> bytes:
    """Events are numbered from 0, so the next number is how many there were."""
    data = _encode({"type": kind, "sequence_number": events, **fields})
    return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"
