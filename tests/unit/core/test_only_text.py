"""An event that is asked for its text alone has nothing else to tell, whatever it looks like."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.core.inference.chat_answer import read_chunk
from gateway.core.inference.judges import JUDGES
from gateway.core.inference.observed_stream import ObservedStream
from gateway.core.inference.request import StreamEvent
from gateway.core.inference.responses_answer import read_event
from tests.fakes import chat_stream as chat
from tests.fakes import responses_stream as responses

TEXTS = st.sampled_from(["a", "b", "", None])
CALL = {"function": {"name": "f", "arguments": "{}"}}
DELTAS = st.fixed_dictionaries(
    {},
    optional={
        "role": st.just("assistant"),
        "content": TEXTS,
        "refusal": TEXTS,
        "reasoning": TEXTS,
        "reasoning_content": TEXTS,
        "tool_calls": st.sampled_from([[], [CALL], None]),
        "function_call": st.sampled_from([CALL["function"], None]),
        "audio": st.sampled_from([{"transcript": "c"}, {}, None]),
    },
)
CHOICES = st.fixed_dictionaries(
    {}, optional={"delta": DELTAS, "message": DELTAS, "text": TEXTS, "finish_reason": TEXTS}
)
USAGES = st.sampled_from([None, {"prompt_tokens": 3, "completion_tokens": 4}, {}, 7])
ERRORS = st.sampled_from([None, {"message": "No."}, "no", False])
TIERS = st.sampled_from([None, "flex", "default", "un\nfit"])
CHUNKS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.just("chatcmpl-1"),
        "choices": st.lists(CHOICES, max_size=2),
        "usage": USAGES,
        "error": ERRORS,
        "service_tier": TIERS,
    },
)
KINDS = st.sampled_from(
    [f"response.{name}.delta" for name in ("output_text", "audio", "refusal")]
    + ["response.completed", "response.created", "error", "response.output_item.added", ""]
)
ANSWERS = st.sampled_from([None, {"service_tier": "flex", "usage": responses.counts()}])
EVENTS = st.fixed_dictionaries(
    {"type": KINDS},
    optional={"delta": TEXTS | st.just(["a"]), "response": ANSWERS, "error": ERRORS},
)


ASKED: dict[str, Any] = {
    "chat": {"messages": [{"role": "user", "content": "Hi"}]},
    "responses": {"input": "Hi"},
}
PIECES = {"chat": chat.text("€uro"), "responses": responses.delta("€uro")}


def tells_its_text_only(said: StreamEvent, tier: str | None) -> None:
    text = said.only_text(tier)
    if text:
        assert list(said.texts()) == [text]
        assert said.usage is None
        assert not said.is_done
        assert not said.is_error
        assert said.service_tier in (None, tier)


@settings(deadline=None, max_examples=300)
@given(CHUNKS, st.sampled_from(["", "error"]), TIERS)
@example({"choices": [{"delta": {"content": "a"}, "text": "b"}]}, "", None)
@example({"choices": [{"delta": {"content": "a"}}, {"delta": {"content": "b"}}]}, "", None)
def test_a_chunk_of_only_text_says_nothing_else(
    chunk: dict[str, Any], name: str, tier: str | None
) -> None:
    said = read_chunk(json.dumps(chunk).encode(), name)
    tells_its_text_only(said, tier)
    if said.only_text(tier):
        assert not said.is_usage


@settings(deadline=None, max_examples=300)
@given(EVENTS, TIERS)
def test_an_event_of_only_text_says_nothing_else(event: dict[str, Any], tier: str | None) -> None:
    tells_its_text_only(read_event(json.dumps(event).encode()), tier)


def test_what_a_stream_mostly_is_is_known_as_text() -> None:
    ordinary = {"service_tier": "flex", "choices": [{"index": 0, "delta": {"content": "a"}}]}
    said = read_chunk(json.dumps(ordinary | {"usage": None}).encode())
    assert (said.only_text("flex"), said.only_text("default"), said.only_text(None)) == (
        *("a", None, None),
    )
    for name in ("output_text", "function_call_arguments", "reasoning_summary_text"):
        delta = {"type": f"response.{name}.delta", "delta": "a"}
        assert read_event(json.dumps(delta).encode()).only_text(None) == "a"


def observed(api: str, count: Callable[[str], int]) -> ObservedStream:
    asked = {"model": "gpt-4o-mini", "stream": True, **ASKED[api]}
    return ObservedStream(JUDGES[api](json.dumps(asked).encode()), count)


@pytest.mark.parametrize("api", ASKED)
def test_every_piece_counts_once(api: str) -> None:
    counted: list[str] = []

    def count(text: str) -> int:
        counted.append(text)
        return len(text)

    stream = observed(api, count)
    for _ in range(5000):
        assert stream.feed(PIECES[api]) == PIECES[api]
    assert stream.events == 5000
    assert stream.written_tokens() == 4 * 5000
    assert "".join(counted) == "€uro" * 5000
    assert len(counted) == 3, "a tokenizer is asked seldom"


@pytest.mark.parametrize("api", ASKED)
def test_the_pieces_of_a_stream_take_little_more_room_than_their_letters(api: str) -> None:
    stream = observed(api, len)
    tracemalloc.start()
    try:
        for _ in range(2000):  # 8,000 letters of two bytes, which nobody has counted yet
            stream.feed(PIECES[api])
        taken_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken_bytes < 32_000
