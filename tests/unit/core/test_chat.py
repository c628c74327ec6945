"""A chat request is judged before it costs anything, and sent on with exactly what was held."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.inference.caps import CAPS
from gateway.core.inference.chat import ChatRequest, judge_chat
from gateway.core.inference.request import Dialect, Sending
from gateway.core.models import Model, Weights
from gateway.core.prompt.chat import count_chat_prompt
from gateway.core.refusal import Case, Refused

HI = {"role": "user", "content": "Hi"}
BASE: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [HI]}
LEFT_OUT = "nothing at all"


def judge(**changes: Any) -> ChatRequest:
    body = {**BASE, **changes}
    return judge_chat(json.dumps({k: v for k, v in body.items() if v != LEFT_OUT}).encode())


def sending(output_tokens: int, **dialect: Any) -> Sending:
    return Sending("gpt-4o-mini", output_tokens, Dialect(**dialect))


def refusal(**changes: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        judge(**changes)
    return caught.value


def said(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


def each(name: str, *values: Any) -> list[dict[str, Any]]:
    return [{name: value} for value in values]


ODD = [
    *each("model", LEFT_OUT, None, "", 3, True, [], {}, ["gpt-4o"]),
    *each("model", "x" * 129, "gpt\n4o", "gpt\x7f", "gpt-4\u043e"),
    *each("service_tier", 1, True, "", ["flex"], "flex\n", "x" * 129),
    *each("messages", LEFT_OUT, None, [], {}, "Hi", 3, True, {"0": HI}),
    *each("stream", 1, "true", "yes", [1], {"a": 1}),
    *each("stream_options", 1, True, "include_usage", ["include_usage"]),
    *each("n", 0, -1, 129, 2**62, 1.0, "2", True, [2], {"a": 1}),
    *each("max_tokens", 0, -5, 1.5, 10.0, "10", True, [], {}),
    *each("max_completion_tokens", 0, -1, 2.5, "x", False, [1]),
    *each("n_predict", -1, 0, "10", 1.5, True),
    *each("tools", {}, "web_search", 3, {"type": "function"}),
]


@pytest.mark.parametrize("changes", ODD, ids=str)
def test_a_value_of_the_wrong_kind_is_refused_by_its_name(changes: dict[str, Any]) -> None:
    refused = refusal(**changes)
    (name,) = changes
    assert refused.case is Case.INVALID_VALUE
    assert refused.param == name
    assert f"'{name}'" in refused.message


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([1], "messages[0]"),
        ([None], "messages[0]"),
        ([[HI]], "messages[0]"),
        ([HI, {}], "messages[1]"),
        ([{"role": 3, "content": "Hi"}], "messages[0]"),
        ([{"role": None}], "messages[0]"),
        (said(3), "messages[0].content"),
        (said(True), "messages[0].content"),
        (said({"type": "text", "text": "Hi"}), "messages[0].content"),
        (said(["Hi"]), "messages[0].content[0]"),
        (said([None]), "messages[0].content[0]"),
        (said([{}]), "messages[0].content[0]"),
        (said([{"type": ["text"], "text": "Hi"}]), "messages[0].content[0]"),
        (said([{"type": "text"}]), "messages[0].content[0].text"),
        (said([{"type": "text", "text": 3}]), "messages[0].content[0].text"),
        (said([{"type": "text", "text": None}]), "messages[0].content[0].text"),
        (said([{"type": "refusal", "text": "No"}]), "messages[0].content[0].refusal"),
    ],
)
def test_an_odd_message_is_refused_by_its_place(messages: Any, param: str) -> None:
    refused = refusal(messages=messages)
    assert (refused.case, refused.param) == (Case.INVALID_VALUE, param)


UNMETERED = [
    {"background": True},
    {"background": "false"},
    {"container": "cntr_1"},
    {"conversation": "conv_1"},
    {"conversation": {"id": "conv_1"}},
    {"previous_response_id": "resp_1"},
    {"prompt": {"id": "pmpt_1"}},
    # The empty object is how a search is asked for.
    {"web_search_options": {}},
    {"web_search_options": {"search_context_size": "low"}},
    {"modalities": []},
    {"modalities": ["video"]},
    {"modalities": ["text", "video"]},
    {"modalities": "audio"},
    {"modalities": 3},
    {"modalities": True},
    {"modalities": {"audio": 1}},
    {"modalities": [["audio"]]},
]


@pytest.mark.parametrize("changes", UNMETERED, ids=str)
def test_what_is_not_metered_is_refused_by_its_name(changes: dict[str, Any]) -> None:
    refused = refusal(**changes)
    assert refused.case is Case.UNSUPPORTED_PARAMETER
    assert [refused.param] == list(changes)


@pytest.mark.parametrize(
    "tool",
    [
        *({"type": "web_search"}, {"type": "file_search", "vector_store_ids": ["vs_1"]}),
        *({"type": "code_interpreter"}, {"type": "mcp"}, {"type": "Function"}, {"type": None}),
        *({"type": ["function"]}, {"type": {"function": 1}}, {}, 3, None, "function", ["function"]),
    ],
    ids=str,
)
def test_a_tool_that_runs_upstream_is_refused_by_its_place(tool: Any) -> None:
    fine = {"type": "function", "function": {"name": "f"}}
    refused = refusal(tools=[fine, tool])
    assert (refused.case, refused.param) == (Case.UNSUPPORTED_PARAMETER, "tools[1]")


@pytest.mark.parametrize("kind", ["file", "video", "Text", "x" * 999])
def test_a_part_that_is_not_metered_is_refused_by_its_place(kind: str) -> None:
    parts = [{"type": "text", "text": "Hi"}, {"type": kind, kind: {"file_id": "file-1"}}]
    refused = refusal(messages=[HI, *said(parts)])
    assert refused.case is Case.UNSUPPORTED_PARAMETER
    assert refused.param == "messages[1].content[1]"
    assert len(refused.message) < 200


def test_the_id_of_a_stored_sound_is_refused() -> None:
    refused = refusal(messages=[{"role": "assistant", "audio": {"id": "audio_1"}}])
    assert refused.case is Case.UNSUPPORTED_PARAMETER


@pytest.mark.parametrize(
    "changes",
    [
        {"stream": None, "stream_options": None, "n": None, "tools": None, "max_tokens": None},
        {"background": False, "audio": None, "prediction": None, "web_search_options": None},
        {"modalities": ["text"]},
        {"modalities": None},
        {"tools": []},
        {"tools": [{"type": "function", "function": {"name": "f"}}, {"type": "custom"}]},
        {"messages": said([{"type": "text", "text": "Hi"}, {"type": "refusal", "refusal": "No"}])},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "a"}]}]},
        {"messages": [{"role": "tool", "tool_call_id": "a", "content": "3"}]},
        {"a_field_of_next_year": {"a": [1]}},
        {"n": 128},
    ],
    ids=str,
)
def test_what_is_allowed_passes_and_is_kept(changes: dict[str, Any]) -> None:
    request = judge(**changes)
    sent = json.loads(request.upstream_body(sending(5)))
    for name, value in changes.items():
        if name not in CAPS:
            assert sent[name] == value


@pytest.mark.parametrize(
    ("caps", "asked"),
    [
        ({}, None),
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 7}, 7),
        ({"max_tokens": 7, "max_completion_tokens": 9}, 7),
        ({"max_tokens": 9, "max_completion_tokens": 7}, 7),
        ({"max_tokens": None, "max_completion_tokens": 7}, 7),
        ({"n_predict": 5, "max_completion_tokens": 7}, 5),
    ],
)
def test_of_two_caps_the_smaller_is_asked_for(caps: dict[str, Any], asked: int | None) -> None:
    assert judge(**caps).output_tokens_asked == asked


@pytest.mark.parametrize(
    ("asked", "bounds"),
    [(None, (100, 16)), (50, (50, 16)), (5, (5, 5)), (16, (16, 16)), (9999, (400, 16))],
)
def test_the_cap_lies_between_what_is_wanted_and_what_is_worth_it(
    asked: int | None, bounds: tuple[int, int]
) -> None:
    model = Model("m", "openai", "o200k_base", 1000, 400, 100, 16, Weights())
    assert judge(max_tokens=asked).output_bounds(model) == bounds


@pytest.mark.parametrize(
    "caps",
    [
        {},
        {"max_tokens": 9},
        {"max_tokens": 9, "max_completion_tokens": 8},
        {"n_predict": 9999, "max_completion_tokens": 8},
    ],
)
def test_exactly_the_held_cap_is_sent_and_no_other(caps: dict[str, Any]) -> None:
    sent = json.loads(judge(**caps).upstream_body(sending(33)))
    assert {name: sent[name] for name in CAPS if name in sent} == {"max_completion_tokens": 33}


def test_a_model_that_writes_nothing_is_refused_with_a_way_on() -> None:
    model = Model("embed", "openai", "cl100k_base", 1000, 0, 0, 0, Weights())
    with pytest.raises(Refused) as caught:
        judge(model="embed").output_bounds(model)
    assert (caught.value.case, caught.value.param) == (Case.INVALID_VALUE, "model")
    assert "'embed' writes no text" in caught.value.message
    assert "/v1/embeddings" in caught.value.message


@pytest.mark.parametrize("store", [LEFT_OUT, True, False, None, "yes"])
def test_nothing_is_stored_upstream(store: Any) -> None:
    request = judge(store=store, metadata={"user": "ada"})
    sent = json.loads(request.upstream_body(sending(5)))
    assert sent["store"] is False
    assert "metadata" not in sent


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        (LEFT_OUT, False),
        (None, False),
        ({}, False),
        ({"include_usage": False}, False),
        ({"include_usage": None}, False),
        ({"include_usage": "true"}, False),
        ({"include_usage": True}, True),
        ({"include_obfuscation": False}, False),
        ({"include_obfuscation": False, "include_usage": True}, True),
    ],
)
def test_usage_is_asked_for_and_the_client_s_options_are_kept(options: Any, asked: bool) -> None:
    request = judge(stream=True, stream_options=options)
    sent = json.loads(request.upstream_body(sending(5)))
    others = options if isinstance(options, dict) else {}
    assert request.asked_usage is asked
    assert sent["stream_options"] == {**others, "include_usage": True}


def test_usage_is_not_asked_for_where_it_is_not_understood() -> None:
    streaming = judge(stream=True).upstream_body(sending(5, stream_usage=False))
    whole = judge().upstream_body(sending(5))
    assert "stream_options" not in json.loads(streaming)
    assert "stream_options" not in json.loads(whole)


HEARS = Model("m", "openai", "o200k_base", 1000, 400, 100, 16, Weights(), takes_audio=True)


# --- any JSON, any bytes ---------------------------------------------------------------------

NAMES = sorted(
    {"model", "messages", "role", "content", "type", "text", "refusal", "audio", "modalities"}
    | {"tools", "function", "functions", "function_call", "name", "description", "parameters"}
    | {"properties", "enum", "items", "anyOf", "required", "tool_calls", "arguments", "custom"}
    | {"stream", "stream_options", "include_usage", "n", "max_tokens", "max_completion_tokens"}
    | {"store", "metadata", "prediction", "web_search_options", "response_format", "json_schema"}
    | {"schema", "tool_choice", "strict", "input_audio", "data", "format", "voice"}
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 200)
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=4)
    | st.sampled_from(
        ["text", "refusal", "function", "custom", "user", "audio", "object", "string"]
    )
)
ANY = st.recursive(
    LEAVES,
    lambda node: (
        st.lists(node, max_size=3) | st.dictionaries(st.sampled_from(NAMES), node, max_size=4)
    ),
    max_leaves=12,
)
SOUND = st.fixed_dictionaries({"data": st.text(max_size=5)}, optional={"format": ANY}) | ANY
PART = (
    st.fixed_dictionaries({"type": st.just("text"), "text": st.text(max_size=5)})
    | st.fixed_dictionaries({"type": st.just("input_audio"), "input_audio": SOUND})
    | ANY
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.just("user")},
    optional={"content": st.text(max_size=5) | st.lists(PART, max_size=2) | ANY}
    | dict.fromkeys(("name", "tool_calls", "function_call", "refusal", "tool_call_id"), ANY),
)
TOOL = st.fixed_dictionaries(
    {"type": st.sampled_from(["function", "custom"])}, optional={"function": ANY, "custom": ANY}
)
# Mostly in order, so that what lies behind the first checks is reached as well.
NEARLY = st.fixed_dictionaries(
    {"model": st.just("m"), "messages": st.lists(MESSAGE | ANY, min_size=1, max_size=3)},
    optional={"tools": st.lists(TOOL, max_size=2) | ANY, "functions": st.lists(ANY, max_size=2)}
    | dict.fromkeys(("tool_choice", "response_format", "function_call"), ANY)
    | {"prediction": st.fixed_dictionaries({"content": st.lists(PART) | ANY}) | ANY}
    | {"modalities": st.lists(st.sampled_from(["text", "audio"])) | ANY}
    | dict.fromkeys(("stream", "stream_options", "n", "max_tokens", "store", "audio"), ANY),
)


@settings(deadline=None, max_examples=200)
@given(NEARLY | st.dictionaries(st.sampled_from(NAMES), ANY))
def test_no_json_brings_anything_but_a_request_or_a_refusal(document: dict[str, Any]) -> None:
    request = judged(json.dumps(document).encode())
    if request is None:
        return
    assert request.choices >= 1
    assert request.count_prompt(HEARS, len) >= count_chat_prompt(request.body, len) >= 0
    least, most = sorted(request.output_bounds(HEARS))
    assert 0 < least <= most <= HEARS.output_tokens_max
    sent = json.loads(request.upstream_body(sending(5)))
    caps = [name for name in sent if name in CAPS]
    assert caps == ([] if request.predicted is not None else ["max_completion_tokens"])
    assert sent["store"] is False


@settings(deadline=None)
@given(st.binary() | ANY.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_bring_anything_but_a_request_or_a_refusal(raw: bytes) -> None:
    judged(raw)


def judged(raw: bytes) -> ChatRequest | None:
    """The request, or None when it was refused in due form; any other error is raised."""
    refused = None
    try:
        return judge_chat(raw)
    except Refused as error:
        refused = error
    assert refused.case.value.status == 400
    assert refused.message
    return None
