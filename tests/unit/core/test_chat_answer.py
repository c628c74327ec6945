"""Usage is believed only when it can be true, and no answer makes the reader raise."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.inference.chat_answer import read_chunk, read_completion
from gateway.core.inference.chat_usage import read_usage
from gateway.core.usage import TOKENS_MAX, Usage, believe

WIRE = {
    "prompt_tokens": 19,
    "completion_tokens": 10,
    "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 6, "accepted_prediction_tokens": 0},
}
USAGE = Usage(19, 4, 10, 6)

NAMES = [
    "choices",
    "usage",
    "delta",
    "message",
    "content",
    "tool_calls",
    "function",
    "id",
    "prompt_tokens",
    "completion_tokens",
    "error",
    "text",
    "arguments",
    "name",
    "service_tier",
    "finish_reason",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda node: (
        st.lists(node, max_size=3) | st.dictionaries(st.sampled_from(NAMES), node, max_size=4)
    ),
    max_leaves=20,
)


def body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, -1, 4.0, "4", [], {}, TOKENS_MAX + 1, 2**70]
)
COUNTS = st.integers(0, 12) | st.integers(0, 12) | st.just(TOKENS_MAX) | ODD


def parts(*names: str) -> st.SearchStrategy[Any]:
    """The details of a usage, mostly of the right shape."""
    return ODD | st.fixed_dictionaries({}, optional=dict.fromkeys(names, COUNTS))


def completion(usage: Any, **message: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    return body(id="chatcmpl-1", service_tier="flex", choices=[choice], usage=usage)


def test_a_completion_tells_usage_text_id_tier_and_ends() -> None:
    answer = read_completion(completion(WIRE, content="Hi", refusal=None))
    assert answer.usage == USAGE
    assert answer.texts() == ["Hi"]
    assert (answer.id, answer.service_tier) == ("chatcmpl-1", "flex")
    assert answer.finish_reasons == ["stop"]
    assert not answer.is_error


def test_all_text_a_model_writes_is_found() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    custom = {"id": "d", "type": "custom", "custom": {"name": "g", "input": "x"}}
    answer = read_completion(
        completion(
            None,
            content="a",
            refusal="b",
            reasoning_content="c",
            reasoning="d",
            audio={"transcript": "e"},
            function_call={"name": "h", "arguments": "[]"},
            tool_calls=[call, custom],
        )
    )
    assert answer.texts() == ["a", "b", "c", "d", "e", "h", "[]", "f", "{}", "g", "x"]


@pytest.mark.parametrize(
    "change",
    [
        {"prompt_tokens": 0},
        {"prompt_tokens": -1},
        {"prompt_tokens": None},
        {"prompt_tokens": "19"},
        {"prompt_tokens": 19.0},
        {"prompt_tokens": True},
        {"prompt_tokens": TOKENS_MAX + 1},
        {"completion_tokens": None},
        {"completion_tokens": -10},
        {"completion_tokens": 10.5},
        {"completion_tokens": 2**70},
        {"completion_tokens": [10]},
    ],
)
def test_an_impossible_usage_is_no_usage(change: dict[str, Any]) -> None:
    assert read_usage(WIRE | change) is None
    assert read_completion(completion(WIRE | change, content="Hi")).usage is None


@pytest.mark.parametrize("wire", [None, {}, [], "19", 19, {"total_tokens": 29}])
def test_what_is_not_a_usage_object_is_no_usage(wire: Any) -> None:
    assert read_usage(wire) is None
    assert read_completion(completion(wire, content="Hi")).usage is None


def test_parts_are_clamped_to_their_wholes_and_odd_parts_are_zero() -> None:
    large = {
        "prompt_tokens_details": {"cached_tokens": 20},
        "completion_tokens_details": {"reasoning_tokens": 11},
    }
    odd = {"prompt_tokens_details": None, "completion_tokens_details": {"reasoning_tokens": "6"}}
    assert read_usage(WIRE | large) == Usage(19, 19, 10, 10)
    assert read_usage(WIRE | odd) == Usage(19, 0, 10, 0)


def test_what_is_priced_apart_is_read_and_clamped() -> None:
    prompt = {"cached_tokens": 4, "cache_write_tokens": 7, "audio_tokens": 8}
    details = {"prompt_tokens_details": prompt, "completion_tokens_details": {"audio_tokens": 11}}
    assert read_usage(WIRE | details) == Usage(
        *(19, 4, 10, 0), cache_write_tokens=7, audio_input_tokens=8, audio_output_tokens=10
    )
    prompt.update(cache_write_tokens=20, audio_tokens=-1)
    assert read_usage(WIRE | details) == Usage(
        *(19, 4, 10, 0), cache_write_tokens=19, audio_output_tokens=10
    )


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "prompt_tokens": COUNTS,
            "completion_tokens": COUNTS,
            "prompt_tokens_details": parts("cached_tokens", "cache_write_tokens", "audio_tokens"),
            "completion_tokens_details": parts("reasoning_tokens", "audio_tokens"),
        },
    )
)
def test_a_whole_answer_tells_the_usage_that_its_plain_values_tell(wire: dict[str, Any]) -> None:
    assert read_completion(body(choices=[], usage=wire)).usage == read_usage(wire)


@pytest.mark.parametrize("total", [None, 0, 30, 10**30, "29"])
def test_the_total_is_not_trusted(total: Any) -> None:
    assert read_usage(WIRE | {"total_tokens": total}) == USAGE


def test_no_output_is_believed_only_where_no_text_is() -> None:
    silent = WIRE | {"completion_tokens": 0, "completion_tokens_details": None}
    assert read_completion(completion(silent, content="")).usage == Usage(19, 4, 0, 0)
    assert read_completion(completion(silent, content="Hi")).usage is None
    last = read_chunk(body(choices=[], usage=silent)).usage
    assert believe(last, wrote_text=False) == Usage(19, 4, 0, 0)
    assert believe(last, wrote_text=True) is None
    assert believe(USAGE, wrote_text=True) == USAGE
    assert believe(None, wrote_text=True) is None


def test_a_chunk_tells_its_text_and_whether_it_is_the_end() -> None:
    chunk = read_chunk(body(id="c", choices=[{"delta": {"content": "Hi"}}], usage=None))
    assert (chunk.texts(), chunk.usage, chunk.id) == (["Hi"], None, "c")
    assert not chunk.is_usage
    assert not chunk.is_done
    for done in (b"[DONE]", b" [DONE]", b"[DONE]\r"):
        assert read_chunk(done).is_done
        assert read_chunk(done).texts() == []
    assert not read_chunk(b"{}").is_done
    assert read_chunk(body(choices=[{"text": "Hi"}])).texts() == ["Hi"]


def test_only_the_usage_chunk_that_nobody_asked_for_is_hidden() -> None:
    last = read_chunk(body(choices=[], usage=WIRE))
    assert last.usage == USAGE
    assert last.is_usage
    shown = (
        body(choices=[], usage=None),
        body(choices=[], prompt_filter_results=[]),
        body(choices=[{"delta": {"content": "Hi"}}], usage=WIRE),
        body(usage=WIRE),
        b"not json",
    )
    for data in shown:
        assert not read_chunk(data).is_usage, data


def test_a_usage_chunk_is_hidden_even_when_its_figures_are_not_believed() -> None:
    for odd in ({"prompt_tokens": "many"}, {"id": 7}):
        chunk = read_chunk(body(**{"choices": [], "usage": WIRE | odd, **odd}))
        assert chunk.is_usage


def test_an_error_object_is_told_from_an_answer() -> None:
    assert read_chunk(body(error={"message": "overloaded"})).is_error
    assert read_completion(body(error={"message": "overloaded"})).is_error
    assert not read_chunk(body(error=None, choices=[])).is_error


@pytest.mark.parametrize("raw", [b"<html>busy</html>", b'{"choices":[', b"[1]", b"null", b"\xff"])
def test_what_cannot_be_read_is_counted_as_text(raw: bytes) -> None:
    for answer in (read_chunk(raw), read_completion(raw)):
        assert answer.usage is None
        assert answer.texts() == [raw.decode("utf-8", "replace")]
        assert not answer.is_error


def test_an_answer_of_another_shape_still_gives_usage_and_text() -> None:
    parts = [{"type": "text", "text": "Hi "}, {"type": "thinking", "text": "there"}]
    answer = read_completion(
        body(id=7, choices=[{"message": {"content": parts}}], usage=WIRE, service_tier="default")
    )
    assert answer.usage == USAGE
    assert answer.texts() == ["Hi there"]
    assert (answer.id, answer.service_tier) == (None, "default")


@pytest.mark.parametrize("label", ["", "a\x00b", "a\nb", "é", "x" * 129])
def test_a_label_unfit_for_a_header_is_no_label(label: str) -> None:
    answer = read_chunk(body(id=label, service_tier=label, choices=[]))
    assert (answer.id, answer.service_tier) == (None, None)


def test_deep_nesting_is_read_or_taken_as_text() -> None:
    for depth in (500, 100_000):
        nested = b'{"choices":' + b"[" * depth + b'"deep"' + b"]" * depth + b"}"
        assert "deep" in read_chunk(nested).texts()[0]


@settings(deadline=None)
@given(st.binary() | st.text().map(str.encode) | JSON.map(json.dumps).map(str.encode))
def test_nothing_that_an_upstream_sends_raises(raw: bytes) -> None:
    for answer in (read_chunk(raw), read_completion(raw)):
        assert answer.usage is None or answer.usage.prompt_tokens > 0
        assert all(isinstance(text, str) and text for text in answer.texts())
        assert isinstance(answer.is_error, bool)
        assert answer.id is None or answer.id.isprintable()
    assert isinstance(read_chunk(raw).is_usage, bool)
