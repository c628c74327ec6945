"""No request of a given length takes much longer to count than that much English, and none stops
the counting. Processor time is compared with processor time, never with a clock on the wall.
"""

from __future__ import annotations

import random
import time
from base64 import b64encode
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from gateway.adapters.tokenizer.bpe import PIECE_CHARS, BpeTokenizer
from gateway.core.inference.chat import judge_chat
from gateway.core.json_body import encode
from gateway.core.models import Model, Weights
from gateway.ports.tokenizer import ENCODINGS

# The worst found is 6 (lone surrogates, which no JSON brings); what requests can bring is below 3.
TIMES_ENGLISH_MAX = 12
# Messages without content and lists of empty schemas are 11: a Python object for every 3 bytes.
TIMES_ENGLISH_OF_OBJECTS_MAX = 30
BYTES = 300_000
CHANCE = random.Random(5)
WORDS = ["the", "quota", "of", "tokens", "is", "counted", "before", "a", "call", "goes", "out"]
ENGLISH = " ".join(CHANCE.choices(WORDS, k=BYTES // 4))[:BYTES]
TOKENIZER = BpeTokenizer()
MODEL = Model("m", "up", "o200k_base", 9999, 9, 9, 9, Weights())
HOSTILE = {
    "spaces": " ",
    "letters": "a",
    "capitals": "A",
    "lines": "\n",
    "tabs": "\t",
    "digits": "7",
    "marks": "!",
    "apostrophes": "'",
    "emoji": "\U0001f600",
    "joined emoji": "\U0001f468\u200d",
    "Chinese": "漢",
    "accents": "\u0301",
    "wide spaces": "\u3000",
    "unknown": "\ufffd",
    "lone surrogates": "\ud800",
    "base64": b64encode(CHANCE.randbytes(BYTES)).decode(),
    "special": "<|endoftext|>",
    "just a piece": " " * (PIECE_CHARS - 1) + "\n",
}


def times_english(work: Callable[[], object], encoding: str, length: int) -> float:
    """Processor time of `work` by that of as much English, the least of five: each is measured
    right beside the other, because a machine that others use too slows both down."""
    return min(
        seconds(work) / (seconds(partial(TOKENIZER.count, ENGLISH, encoding)) * length / BYTES)
        for _ in range(5)
    )


def seconds(work: Callable[[], object]) -> float:
    """Processor time of this thread."""
    began = time.thread_time()
    work()
    return time.thread_time() - began


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    for encoding in ENCODINGS:
        TOKENIZER.load(encoding)


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
@pytest.mark.parametrize("name", HOSTILE)
def test_no_text_takes_much_longer_than_english_of_its_length(name: str, encoding: str) -> None:
    unit = HOSTILE[name]
    unit_bytes = len(unit.encode("utf-8", "surrogatepass"))
    text = (unit * (BYTES // unit_bytes + 1))[: BYTES * len(unit) // unit_bytes]
    taken = times_english(lambda: TOKENIZER.count(text, encoding), encoding, BYTES)
    assert taken < TIMES_ENGLISH_MAX


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string", "description": "d"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"p": schema}}
    return schema


def tool(number: int, schema: dict[str, Any]) -> dict[str, Any]:
    function = {"name": f"f{number}", "description": "Do it", "parameters": schema}
    return {"type": "function", "function": function}


CALL = {"id": "c", "type": "function", "function": {"name": "a", "arguments": "{}"}}
LARGE: dict[str, dict[str, Any]] = {
    "10,000 messages": {"messages": [{"role": "user", "content": "x"}] * 10_000},
    "10,000 empty messages": {"messages": [{"role": ""}] * 10_000},
    "5,000 tools": {"tools": [tool(number, deep(1)) for number in range(5000)]},
    "300 tools of the deepest schema": {"tools": [tool(n, deep(29)) for n in range(300)]},
    "20,000 parts": {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 20_000}]
    },
    "10,000 calls": {"messages": [{"role": "assistant", "tool_calls": [CALL] * 10_000}]},
    "a wide enumeration": {"tools": [tool(0, {"properties": {"a": {"enum": ["b"] * 100_000}}})]},
    "a union of nothing": {"tools": [tool(0, {"properties": {"a": {"anyOf": [{}] * 100_000}}})]},
}


@pytest.mark.parametrize("name", LARGE)
def test_no_request_takes_much_longer_than_english_of_its_length(
    name: str,
) -> None:
    raw = encode({"model": "m", "messages": [{"role": "user", "content": "x"}], **LARGE[name]})
    request = judge_chat(raw)
    taken = times_english(
        lambda: request.count_prompt(MODEL, lambda text: TOKENIZER.count(text, "o200k_base")),
        "o200k_base",
        len(raw),
    )
    assert taken < TIMES_ENGLISH_OF_OBJECTS_MAX
