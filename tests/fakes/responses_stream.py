"""Answers of /responses as OpenAI writes them, whole and event by event.

The shapes follow `openai.types.responses`; the tests of the reader hold them to it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

ID = "resp_1"
ITEM = "msg_1"


def counts(input_tokens: Any = 20, output_tokens: Any = 30) -> dict[str, Any]:
    return {
        "input_tokens": input_tokens,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": 6},
        "total_tokens": 50,
    }


def message(*texts: str, status: str = "completed") -> dict[str, Any]:
    """An item of output that says these texts."""
    parts = [{"type": "output_text", "text": text, "annotations": []} for text in texts]
    return {
        "type": "message",
        "id": ITEM,
        "status": status,
        "role": "assistant",
        "content": parts,
    }


def call(name: str = "find", arguments: str = "") -> dict[str, Any]:
    """An item of output that calls a function."""
    return {
        "type": "function_call",
        "id": "fc_1",
        "call_id": "call_1",
        "name": name,
        "arguments": arguments,
    }


def response(status: str = "completed", **fields: Any) -> dict[str, Any]:
    """A response object. It is what a whole answer is, and what some events carry."""
    return {
        "id": ID,
        "object": "response",
        "created_at": 1767874435,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": "Be brief.",
        "metadata": {},
        "model": "gpt-4o-mini",
        "output": [],
        "parallel_tool_calls": True,
        "service_tier": "default" if status != "in_progress" else "auto",
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": None,
        **fields,
    }


def whole(status: str = "completed", **fields: Any) -> bytes:
    """A whole answer, with usage if no other is given."""
    given = {"output": [message("Hello")], "usage": counts(), **fields}
    return json.dumps(response(status, **given)).encode()


def event(kind: str, number: int = 0, **fields: Any) -> bytes:
    """One event of a stream."""
    data = json.dumps({"type": kind, "sequence_number": number, **fields})
    return f"event: {kind}\ndata: {data}\n\n".encode()


def delta(text: Any, number: int = 0, kind: str = "output_text", **fields: Any) -> bytes:
    """One piece of text; what surrounds it is not the model's."""
    place = {"item_id": ITEM, "output_index": 0, "content_index": 0, "summary_index": 0}
    padding = {"logprobs": [], "obfuscation": "aZbQ8sdf"}
    return event(f"response.{kind}.delta", number, **place, **padding, delta=text, **fields)


def said(*texts: str) -> tuple[bytes, ...]:
    """The events of a message up to the last, which is not among them."""
    place = {"item_id": ITEM, "output_index": 0, "content_index": 0}
    started = {"output_index": 0, "item": message(status="in_progress")}
    done = "".join(texts)
    part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    head: Sequence[tuple[str, dict[str, Any]]] = (
        ("response.created", {"response": response("in_progress")}),
        ("response.in_progress", {"response": response("in_progress")}),
        ("response.output_item.added", started),
        ("response.content_part.added", {**place, "part": part}),
    )
    tail: Sequence[tuple[str, dict[str, Any]]] = (
        ("response.output_text.done", {**place, "text": done, "logprobs": []}),
        ("response.content_part.done", {**place, "part": {**part, "text": done}}),
        ("response.output_item.done", {"output_index": 0, "item": message(done)}),
    )
    events = [event(kind, number, **fields) for number, (kind, fields) in enumerate(head)]
    events += [delta(text, len(head) + number) for number, text in enumerate(texts)]
    start = len(events)
    events += [event(kind, start + number, **fields) for number, (kind, fields) in enumerate(tail)]
    return tuple(events)


def last(status: str = "completed", number: int = 0, **fields: Any) -> bytes:
    """The event that ends a stream, with usage if no other is given."""
    state = response(status, **{"usage": counts(), **fields})
    return event(f"response.{status}", number, response=state)
