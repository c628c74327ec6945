"""Streams as OpenAI writes them, one event a function."""

from __future__ import annotations

import json
from typing import Any

DONE = b"data: [DONE]\n\n"


def event(**fields: Any) -> bytes:
    """One event of an answer called `chatcmpl-1`."""
    document = {"id": "chatcmpl-1", "object": "chat.completion.chunk", **fields}
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def text(content: str, **fields: Any) -> bytes:
    return event(choices=[{"index": 0, "delta": {"content": content}}], usage=None, **fields)


def finish(reason: str = "stop") -> bytes:
    return event(choices=[{"index": 0, "delta": {}, "finish_reason": reason}], usage=None)


def usage(prompt_tokens: Any, completion_tokens: Any) -> bytes:
    counts = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    return event(choices=[], usage=counts)


def completion(content: str | None, counts: Any = None, **fields: Any) -> bytes:
    """A whole answer."""
    message = {"role": "assistant", "content": content}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return json.dumps({"id": "chatcmpl-1", "choices": choices, "usage": counts, **fields}).encode()
