"""Every text of a response counts once, usage only if it can be true, and no answer raises."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from gateway.core.inference.responses_answer import (
    ResponsesEvent,
    read_answer,
    read_event,
    read_usage,
)
from gateway.core.sse import SseReader
from gateway.core.usage import TOKENS_MAX, Usage
from tests.fakes.responses_stream import (
    call,
    counts,
    delta,
    event,
    last,
    message,
    response,
    said,
    whole,
)

USAGE = Usage(20, 4, 30, 6)
WIRE = counts()
REASONING: dict[str, Any] = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [{"type": "summary_text", "text": "c"}],
    "content": [{"type": "reasoning_text", "text": "d"}],
    "encrypted_content": "gAAAAA",
}
CUSTOM = {"type": "custom_tool_call", "id": "x", "call_id": "y", "name": "g", "input": "x"}
REFUSED = {"type": "refusal", "refusal": "b"}
SAMPLES = {
    "said": said("Hello", " world"),
    "completed": [last(output=[message("Hello"), call("f", "{}"), CUSTOM, REASONING])],
    "incomplete": [last("incomplete", incomplete_details={"reason": "max_output_tokens"})],
    "failed": [last("failed", error={"code": "server_error", "message": "No."}, usage=None)],
    "error": [event("error", 3, code="server_error", message="No.", param=None)],
    "called": [event("response.output_item.added", output_index=0, item=call())],
    "refusal": [delta("a", kind="refusal")],
    "arguments": [delta("a", kind="function_call_arguments")],
    "input": [delta("a", kind="custom_tool_call_input")],
    "summary": [delta("a", kind="reasoning_summary_text")],
    "reasoning": [delta("a", kind="reasoning_text")],
}


def read(raw: bytes) -> ResponsesEvent:
    (found,) = SseReader().feed(raw)
    return read_event(found.data or b"", found.name)


def texts(*events: bytes) -> list[str]:
    return [text for each in events for text in read(each).texts()]


@pytest.mark.parametrize("events", SAMPLES.values(), ids=SAMPLES)
def test_the_samples_are_such_as_openai_s_client_knows(events: tuple[bytes, ...]) -> None:
    known = TypeAdapter[Any](ResponseStreamEvent)
    for raw in events:
        (found,) = SseReader().feed(raw)
        known.validate_json(found.data or b"", strict=False)
    Response.model_validate_json(whole())


def test_a_whole_answer_tells_usage_text_id_and_tier() -> None:
    answer = read_answer(whole(service_tier="flex"))
    assert answer.usage == USAGE
    assert answer.texts() == ["Hello"]
    assert (answer.id, answer.service_tier) == ("resp_1", "flex")


@pytest.mark.parametrize("status", ["incomplete", "failed", "cancelled"])
def test_an_answer_that_did_not_complete_tells_its_usage_as_well(status: str) -> None:
    answer = read_answer(whole(status, error={"code": "server_error", "message": "No."}))
    assert answer.usage == USAGE


def test_all_text_a_model_writes_is_found() -> None:
    refused = {**message("a"), "content": [*message("a")["content"], REFUSED]}
    answer = read_answer(whole(output=[refused, REASONING, call("f", "{}"), CUSTOM]))
    assert answer.texts() == ["a", "b", "c", "d", "f", "{}", "g", "x"]


@pytest.mark.parametrize(
    "kind",
    [
        *("output_text", "refusal", "function_call_arguments", "custom_tool_call_input"),
        *("reasoning_summary_text", "reasoning_text", "a_text_of_next_year"),
    ],
)
def test_every_delta_of_text_counts(kind: str) -> None:
    assert texts(delta("Hello", kind=kind)) == ["Hello"]


def test_sound_and_what_is_no_text_counts_as_none() -> None:
    assert texts(delta("UklGRg==", kind="audio")) == []
    assert texts(delta({"stdout": "Hello"}, kind="shell_call_output_content")) == []
    assert texts(delta(None), delta(""), delta(["Hello"])) == []


def test_what_a_stream_repeats_counts_once() -> None:
    assert texts(*said("Hello", " world")) == ["Hello", " world"]
    arguments: dict[str, Any] = {"item_id": "fc_1", "output_index": 0, "name": "find"}
    assert texts(
        event("response.output_item.added", item=call("find")),
        delta("{}", kind="function_call_arguments"),
        event("response.function_call_arguments.done", **arguments, arguments="{}"),
        event("response.output_item.done", item=call("find", "{}")),
    ) == ["find", "{}"]


def test_the_last_event_tells_the_whole_answer() -> None:
    for status in ("completed", "incomplete", "failed"):
        end = read(last(status, output=[message("Hello", " world")]))
        assert (end.is_done, end.usage, end.id) == (True, USAGE, "resp_1")
        assert end.texts() == ["Hello", " world"]
        assert end.service_tier == "default"
        assert end.is_error is (status == "failed")


def test_until_the_end_there_is_an_id_and_nothing_more() -> None:
    begun = read(event("response.in_progress", response=response("in_progress", usage=WIRE)))
    assert (begun.id, begun.service_tier, begun.usage) == ("resp_1", None, None)
    assert not begun.is_done
    assert begun.texts() == []


@pytest.mark.parametrize(
    "raw",
    [
        event("error", code="server_error", message="No.", param=None),
        event("error", error={"type": "server_error", "message": "No."}),
        b'event: error\ndata: {"message":"No."}\n\n',
        b'data: {"type":"error"}\n\n',
        b'data: {"error":{"message":"overloaded"}}\n\n',
    ],
)
def test_an_error_is_known_in_all_its_forms(raw: bytes) -> None:
    assert read(raw).is_error
    assert not read(raw).is_done  # a response.failed may follow


def test_an_event_without_a_type_is_known_by_its_name() -> None:
    assert texts(b'event: response.output_text.delta\ndata: {"delta":"Hello"}\n\n') == ["Hello"]


def test_a_done_that_other_upstreams_send_is_the_end() -> None:
    for done in (b"[DONE]", b" [DONE]", b"[DONE]\r"):
        assert read_event(done).is_done
        assert read_event(done).texts() == []
    assert not read_event(b"{}").is_done


@pytest.mark.parametrize(
    "change",
    [
        *({"input_tokens": 0}, {"input_tokens": -1}, {"input_tokens": None}),
        *({"input_tokens": "20"}, {"input_tokens": 20.0}, {"input_tokens": True}),
        *({"input_tokens": TOKENS_MAX + 1}, {"output_tokens": None}, {"output_tokens": -1}),
        *({"output_tokens": 30.5}, {"output_tokens": 2**70}, {"output_tokens": 0}),
    ],
    ids=str,
)
def test_an_impossible_usage_is_no_usage(change: dict[str, Any]) -> None:
    assert read_answer(whole(usage=WIRE | change)).usage is None
    assert read(last(usage=WIRE | change, output=[message("Hello")])).usage is None


@pytest.mark.parametrize("wire", [None, {}, [], "20", 20, {"total_tokens": 50}])
def test_what_is_not_a_usage_object_is_no_usage(wire: Any) -> None:
    assert read_usage(wire) is None
    assert read_answer(whole(usage=wire)).usage is None


def test_no_output_is_believed_where_there_is_no_text() -> None:
    silent = counts(20, 0)
    assert read_answer(whole(usage=silent, output=[])).usage == Usage(20, 4, 0, 0)


@pytest.mark.parametrize("details", [None, {}, [], {"cached_tokens": "4"}])
def test_odd_parts_are_zero_and_large_ones_clamped(details: Any) -> None:
    odd = {"input_tokens_details": details, "output_tokens_details": details}
    assert read_usage(WIRE | odd) == Usage(20, 0, 30, 0)
    large = {"input_tokens_details": {"cached_tokens": 21}}
    assert read_usage(WIRE | large) == Usage(20, 20, 30, 6)


@pytest.mark.parametrize("raw", [b"<html>busy</html>", b'{"output":[', b"[1]", b"null", b"\xff"])
def test_what_cannot_be_read_is_counted_as_text(raw: bytes) -> None:
    text = [raw.decode("utf-8", "replace")]
    assert (read_answer(raw).usage, read_answer(raw).texts()) == (None, text)
    assert (read_event(raw).texts(), read_event(raw).is_done) == (text, False)


def test_an_event_cut_short_counts_only_where_it_is_text() -> None:
    assert read_event(b'{"del', "response.output_text.delta").texts() == ['{"del']
    for name in ("response.created", "response.completed", "error"):
        assert read_event(b'{"respo', name).texts() == []


def test_an_answer_of_another_shape_still_gives_usage_and_text() -> None:
    odd: dict[str, Any] = {
        "id": 7,
        "output": [{"content": "Hi "}, {"content": [{"text": ["there"]}]}],
    }
    answer = read_answer(whole(**odd))
    assert (answer.usage, answer.texts(), answer.id) == (USAGE, ["Hi there"], None)
    end = read(last(**odd))
    assert (end.usage, end.texts(), end.is_done) == (USAGE, ["Hi there"], True)
    assert texts(delta("Hi", item=3), event("response.output_item.added", item={"name": 3})) == [
        "Hi"
    ]


def test_deep_nesting_is_read_or_taken_as_text() -> None:
    for depth in (500, 100_000):
        nested = b'{"output":' + b"[" * depth + b'"deep"' + b"]" * depth + b"}"
        assert "deep" in read_answer(nested).texts()[0]
        delta_of = b'{"type":"response.x.delta","delta":' + nested + b"}"
        assert isinstance(read_event(delta_of).texts(), list)


NAMES = sorted(
    {"type", "delta", "item", "response", "output", "content", "summary", "text", "refusal"}
    | {"name", "arguments", "input", "id", "service_tier", "usage", "error", "input_tokens"}
    | {"output_tokens", "input_tokens_details", "cached_tokens"}
)
KINDS = ["response.completed", "response.failed", "response.output_text.delta", "error", "message"]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    # Mostly in order, so that what lies behind the first checks is reached as well.
    | st.sampled_from([*KINDS, "response.output_item.added"]),
    lambda node: (
        st.lists(node, max_size=3) | st.dictionaries(st.sampled_from(NAMES), node, max_size=4)
    ),
    max_leaves=20,
)
EVENT = st.fixed_dictionaries(
    {"type": st.sampled_from(KINDS)}, optional=dict.fromkeys(("response", "delta", "item"), JSON)
)


@settings(deadline=None)
@given(st.binary() | (JSON | EVENT).map(json.dumps).map(str.encode), st.text(max_size=3))
def test_nothing_that_an_upstream_sends_raises(raw: bytes, name: str) -> None:
    found = read_event(raw, name)
    for each in (found, read_answer(raw)):
        assert each.usage is None or each.usage.prompt_tokens > 0
        assert all(isinstance(text, str) and text for text in each.texts())
        assert each.id is None or each.id.isprintable()
        assert each.service_tier is None or each.service_tier.isprintable()
    assert isinstance(found.is_error, bool)
    assert isinstance(found.is_done, bool)
