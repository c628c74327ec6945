"""The requests of a benchmark: chat completions of a given size, of many users.

Complete HTTP/1.1 messages, made before the run. No two users send the same text, so that nothing
is saved by remembering one.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

_TEXT = (
    "please summarise the following report about budget and delivery for the quarter while keeping "
    "every figure names of people dates and open questions in a table then explain which decision "
    "was taken by whom and why it matters to customers in london paris or berlin with risks"
)


@dataclass(frozen=True, slots=True)
class Shape:
    """What a request is like. `body_bytes` is exact."""

    body_bytes: int = 1024
    stream: bool = False
    model: str = "gpt-4o-mini"


def body(shape: Shape, seed: int) -> bytes:
    """A body of that shape; the same seed gives the same text."""
    asked: dict[str, object] = {"model": shape.model, "stream": shape.stream}
    if shape.stream:
        asked["stream_options"] = {"include_usage": True}
    system = {"role": "system", "content": "You are a careful assistant."}
    empty = _encoded({**asked, "messages": [system, {"role": "user", "content": ""}]})
    draw, words, text = random.Random(seed), _TEXT.split(), ""
    while len(text) < shape.body_bytes:
        text += draw.choice(words) + " "
    text = text[: shape.body_bytes - len(empty)]
    return _encoded({**asked, "messages": [system, {"role": "user", "content": text}]})


def requests(shape: Shape, keys: Sequence[str]) -> list[bytes]:
    """One request of each key, ready to be sent."""
    made = []
    for seed, key in enumerate(keys):
        content = body(shape, seed)
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\n"
            "Host: 127.0.0.1\r\n"
            "Accept: application/json\r\n"
            "User-Agent: OpenAI/Python 3.54.0\r\n"
            "Content-Type: application/json\r\n"
            f"Authorization: Bearer {key}\r\n"
            f"Content-Length: {len(content)}\r\n\r\n"
        )
        made.append(head.encode() + content)
    return made


def _encoded(asked: dict[str, object]) -> bytes:
    return json.dumps(asked, separators=(",", ":")).encode()
