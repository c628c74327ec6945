"""A /responses request is judged before it costs anything, and sent on with what was held."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.inference.request import Dialect, Sending
from gateway.core.inference.responses import ResponsesRequest, judge_responses
from gateway.core.models import Model, Weights
from gateway.core.prompt.responses import count_responses_prompt
from gateway.core.refusal import Case, Refused

HI = {"role": "user", "content": "Hi"}
BASE: dict[str, Any] = {"model": "gpt-4o-mini", "input": "Hi"}
LEFT_OUT = "nothing at all"
FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c", "output": "3"}
SEALED = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAAA"}


def judge(**changes: Any) -> ResponsesRequest:
    body = {**BASE, **changes}
    return judge_responses(json.dumps({k: v for k, v in body.items() if v != LEFT_OUT}).encode())


def sent(request: ResponsesRequest, output_tokens: int = 5, **dialect: Any) -> dict[str, Any]:
    sending = Sending("gpt-4o-mini", output_tokens, Dialect(**dialect))
    document: dict[str, Any] = json.loads(request.upstream_body(sending))
    return document


def refusal(**changes: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        judge(**changes)
    return caught.value


def said(*parts: Any) -> list[Any]:
    return [{"type": "message", "role": "user", "content": list(parts)}]


def each(name: str, *values: Any) -> list[dict[str, Any]]:
    return [{name: value} for value in values]


ODD = [
    *each("model", LEFT_OUT, None, "", 3, True, [], {}),
    *each("input", LEFT_OUT, None, [], {}, 3, True),
    *each("instructions", 3, True, [HI], {"a": 1}),
    *each("stream", 1, "true", [1], {"a": 1}),
    *each("stream_options", 1, True, "include_obfuscation"),
    *each("max_output_tokens", 0, -5, 1.5, 10.0, "10", True, [], {}),
    *each("tools", {}, "web_search", 3, {"type": "function"}),
    *each("include", {}, "reasoning.encrypted_content", 3),
    *each("reasoning", "high", 3, []),
    *each("prompt_cache_options", "implicit", 3, []),
]


@pytest.mark.parametrize("changes", ODD, ids=str)
def test_a_value_of_the_wrong_kind_is_refused_by_its_name(changes: dict[str, Any]) -> None:
    refused = refusal(**changes)
    (name,) = changes
    assert refused.case is Case.INVALID_VALUE
    assert refused.param == name
    assert f"'{name}'" in refused.message


@pytest.mark.parametrize(
    ("item", "param"),
    [
        (1, "input[1]"),
        (None, "input[1]"),
        ([HI], "input[1]"),
        ({"role": "user"}, "input[1].content"),
        ({"role": "user", "id": "msg_1"}, "input[1].content"),
        ({"role": "user", "content": 3}, "input[1].content"),
        ({"type": "message", "content": "Hi"}, "input[1].role"),
        ({"type": "message", "id": "msg_1", "role": "user"}, "input[1].content"),
        (said("Hi")[0], "input[1].content[0]"),
        (said({})[0], "input[1].content[0]"),
        (said({"type": 3, "text": "Hi"})[0], "input[1].content[0]"),
        (said({"type": "input_text"})[0], "input[1].content[0].text"),
        (said({"type": "output_text", "text": None})[0], "input[1].content[0].text"),
        (said({"type": "refusal", "text": "No"})[0], "input[1].content[0].refusal"),
        ({**CALL, "name": None}, "input[1].name"),
        ({**CALL, "arguments": {"a": 1}}, "input[1].arguments"),
        ({"type": "custom_tool_call", "name": "f"}, "input[1].input"),
        ({**OUTPUT, "output": None}, "input[1].output"),
        ({**OUTPUT, "output": [3]}, "input[1].output[0]"),
        ({**SEALED, "encrypted_content": 3}, "input[1].encrypted_content"),
        ({**SEALED, "summary": "thoughts"}, "input[1].summary"),
        ({**SEALED, "content": "thoughts"}, "input[1].content"),
    ],
    ids=str,
)
def test_an_odd_item_is_refused_by_its_place(item: Any, param: str) -> None:
    refused = refusal(input=[HI, item])
    assert (refused.case, refused.param) == (Case.INVALID_VALUE, param)


UNAVAILABLE = [
    *each("access_programs", {"cyber": "daybreak_red"}),
    *each("background", True, "false", {}),
    *each("background_options", {"completion_window": "8h"}),
    *each("container", "cntr_1"),
    *each("context_management", [{"type": "compaction"}]),
    *each("conversation", "conv_1", {"id": "conv_1"}, {}),
    *each("file_ids", ["file-1"]),
    *each("previous_response_id", "resp_1", ""),
    *each("prompt", {"id": "pmpt_1"}, {}),
    *each("tool_resources", {"file_search": {"vector_store_ids": ["vs_1"]}}),
    *each("vector_store_ids", ["vs_1"]),
]


@pytest.mark.parametrize("changes", UNAVAILABLE, ids=str)
def test_what_is_stored_or_goes_on_alone_is_refused_by_its_name(changes: dict[str, Any]) -> None:
    refused = refusal(**changes)
    assert refused.case is Case.UNSUPPORTED_PARAMETER
    assert [refused.param] == list(changes)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
        ({"reasoning": {"mode": ["pro"]}}, "reasoning.mode"),
        ({"include": ["file_search_call.results"]}, "include[0]"),
        ({"include": ["reasoning.encrypted_content", "of_next_year"]}, "include[1]"),
        ({"include": [["reasoning.encrypted_content"]]}, "include[0]"),
        (
            {"prompt_cache_options": {"comparison_response_id": "resp_1"}},
            "prompt_cache_options.comparison_response_id",
        ),
        ({"prompt_cache_options": {"ttl": "12h"}}, "prompt_cache_options.ttl"),
        ({"prompt_cache_options": {"prewarm": True}}, "prompt_cache_options.prewarm"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"tool_choice": {"type": "mcp", "server_label": "x"}}, "tool_choice"),
        (
            {"tool_choice": {"type": "allowed_tools", "tools": [FUNCTION, {"type": "mcp"}]}},
            "tool_choice.tools[1]",
        ),
    ],
    ids=str,
)
def test_a_part_of_a_field_is_refused_by_its_path(changes: dict[str, Any], param: str) -> None:
    refused = refusal(**changes)
    assert (refused.case, refused.param) == (Case.UNSUPPORTED_PARAMETER, param)


@pytest.mark.parametrize(
    "tool",
    [
        *({"type": "web_search"}, {"type": "web_search_2025_08_26"}, {"type": "mcp"}),
        *({"type": "web_search_preview"}, {"type": "file_search", "vector_store_ids": ["vs_1"]}),
        *({"type": "code_interpreter", "container": "cntr_1"}, {"type": "image_generation"}),
        *({"type": "computer"}, {"type": "computer_use_preview"}, {"type": "local_shell"}),
        *({"type": "shell"}, {"type": "apply_patch"}, {"type": "tool_search"}),
        *({"type": "namespace", "tools": [FUNCTION]}, {"type": "programmatic_tool_calling"}),
        *({"type": "a_tool_of_next_year"}, {"type": "x" * 999}, {"type": "Function"}),
        *({"type": None}, {"type": ["function"]}, {"type": {"function": 1}}, {}),
        *(3, None, "function", ["function"]),
    ],
    ids=str,
)
def test_a_tool_that_the_client_does_not_run_is_refused_by_its_place(tool: Any) -> None:
    refused = refusal(tools=[FUNCTION, tool])
    assert (refused.case, refused.param) == (Case.UNSUPPORTED_PARAMETER, "tools[1]")
    assert "not metered by this gateway yet" in refused.message
    assert len(refused.message) < 200


@pytest.mark.parametrize(
    "item",
    [
        *({"type": "item_reference", "id": "msg_1"}, {"id": "msg_1"}, {"id": "m", "role": None}),
        *({"type": None, "id": "msg_1"}, {}, {"content": "Hi"}),
        *(
            {"type": kind}
            for kind in ("web_search_call", "file_search_call", "mcp_call", "program")
        ),
        *({"type": kind} for kind in ("mcp_approval_response", "code_interpreter_call", "x" * 999)),
        *(
            {"type": kind, "tools": [FUNCTION]}
            for kind in ("additional_tools", "tool_search_output")
        ),
        *({"type": kind} for kind in ("compaction", "compaction_trigger", "configuration_update")),
        *(
            {"type": kind}
            for kind in ("computer_call_output", "shell_call", "image_generation_call")
        ),
        *({"type": ["message"], "role": "user", "content": "Hi"}, {"type": 3}),
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "a"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [], "encrypted_content": ""},
    ],
    ids=str,
)
def test_an_item_without_its_content_or_its_price_is_refused_by_its_place(item: Any) -> None:
    refused = refusal(input=[HI, item])
    assert (refused.case, refused.param) == (Case.UNSUPPORTED_PARAMETER, "input[1]")
    assert len(refused.message) < 250


@pytest.mark.parametrize("kind", ["input_file", "input_audio", "video", "x" * 999])
def test_a_part_that_is_not_metered_is_refused_by_its_place(kind: str) -> None:
    part = {"type": kind, "file_id": "file-1"}
    text = {"type": "input_text", "text": "Hi"}
    for item, place in (
        (said(text, part)[0], "content"),
        ({**OUTPUT, "output": [text, part]}, "output"),
        ({**SEALED, "content": [text, part]}, "content"),
    ):
        refused = refusal(input=[HI, item])
        assert refused.case is Case.UNSUPPORTED_PARAMETER
        assert refused.param == f"input[1].{place}[1]"
        assert "not metered by this gateway yet" in refused.message
        assert len(refused.message) < 200


@pytest.mark.parametrize(
    "stored",
    [
        {"file_id": "file-1"},
        {"annotations": [{"type": "file_citation", "file_id": "file-1"}]},
        {"annotations": [{"container_id": "cntr_1"}]},
        {"of_next_year": [[{"deep": {"vector_store_ids": []}}]]},
        {"container": {"type": "auto", "file_ids": ["file-1"]}},
    ],
    ids=str,
)
def test_the_id_of_a_stored_object_is_refused_wherever_it_stands(stored: dict[str, Any]) -> None:
    part = {"type": "output_text", "text": "Hi", **stored}
    for item in (said(part)[0], {**HI, **stored}, {**OUTPUT, "output": [part]}):
        refused = refusal(input=[HI, item])
        assert (refused.case, refused.param) == (Case.UNSUPPORTED_PARAMETER, "input[1]")


ALLOWED = [
    {"stream": None, "stream_options": None, "tools": None, "include": None, "reasoning": None},
    {"background": False, "conversation": None, "prompt": None, "previous_response_id": None},
    {"stream": True, "stream_options": {"include_obfuscation": False}},
    {"include": ["reasoning.encrypted_content", "message.output_text.logprobs"]},
    {"instructions": "Be brief.", "metadata": {"file_id": "mine"}, "user": "ada"},
    {"reasoning": {"effort": "high", "summary": "auto", "mode": "standard"}},
    {"max_tool_calls": 3, "truncation": "auto", "service_tier": "flex", "top_logprobs": 3},
    {"text": {"format": {"type": "json_schema", "schema": {"properties": {"file_id": {}}}}}},
    {"parallel_tool_calls": False, "safety_identifier": "x", "prompt_cache_key": "y"},
    {"prompt_cache_options": {"mode": "explicit", "comparison_response_id": None, "ttl": "30m"}},
    {"tools": [], "tool_choice": "auto"},
    {"tools": [FUNCTION, {"type": "custom", "name": "g"}], "tool_choice": {"type": "custom"}},
    {"tools": [{**FUNCTION, "parameters": {"properties": {"file_id": {"type": "string"}}}}]},
    {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [FUNCTION]}},
    {"input": ""},
    {"input": [HI, {"type": "message", "role": "assistant", "id": "msg_1", "content": []}]},
    {"input": [HI, SEALED, CALL, OUTPUT, {"type": "message", **HI}]},
    {"input": [{"type": "custom_tool_call", "name": "g", "input": "x", "call_id": "d"}]},
    {"input": [{"type": "custom_tool_call_output", "call_id": "d", "output": "y"}]},
    {"input": [{"type": "reasoning", "content": [{"type": "reasoning_text", "text": "a"}]}]},
    {"input": said({"type": "output_text", "text": "a", "annotations": [{"url": "u"}]})},
    {"input": said({"type": "refusal", "refusal": "No"}, {"type": "input_text", "text": "a"})},
    {"a_field_of_next_year": {"a": [1]}},
]


@pytest.mark.parametrize("changes", ALLOWED, ids=str)
def test_what_is_allowed_passes_and_is_kept(changes: dict[str, Any]) -> None:
    document = sent(judge(**changes))
    for name, value in changes.items():
        assert document[name] == value


@pytest.mark.parametrize(
    ("asked", "bounds"),
    [(None, (100, 16)), (50, (50, 16)), (5, (5, 5)), (16, (16, 16)), (9999, (400, 16))],
)
def test_the_cap_lies_between_what_is_wanted_and_what_is_worth_it(
    asked: int | None, bounds: tuple[int, int]
) -> None:
    model = Model("m", "openai", "o200k_base", 1000, 400, 100, 16, Weights())
    request = judge(max_output_tokens=asked)
    assert (request.output_bounds(model), request.choices) == (bounds, 1)


@pytest.mark.parametrize("cap", [LEFT_OUT, None, 9])
def test_exactly_the_held_cap_is_sent(cap: Any) -> None:
    for name in ("max_completion_tokens", "max_tokens"):  # what an upstream calls it in a chat
        document = sent(judge(max_output_tokens=cap), 33, cap_name=name)
        assert document["max_output_tokens"] == 33
        assert name not in document


@pytest.mark.parametrize("store", [LEFT_OUT, True, False, None, "yes"])
def test_nothing_is_stored_upstream(store: Any) -> None:
    request = judge(store=store, metadata={"user": "ada"})
    assert sent(request)["store"] is False
    assert sent(request)["metadata"] == {"user": "ada"}
    assert "store" not in sent(request, knows_store=False)


def test_usage_is_not_asked_for_because_it_comes_anyway() -> None:
    for usage in (True, False):
        assert "stream_options" not in sent(judge(stream=True), stream_usage=usage)


# --- any JSON, any bytes ---------------------------------------------------------------------

NAMES = sorted(
    {"model", "input", "instructions", "role", "content", "type", "text", "refusal", "summary"}
    | {"tools", "name", "description", "parameters", "properties", "output", "call_id", "format"}
    | {"schema", "tool_choice", "stream", "include", "reasoning", "mode", "store", "file_id", "id"}
    | {"max_output_tokens", "encrypted_content", "arguments", "output_schema", "stream_options"}
    | {"prompt_cache_options"}
)
TEXT_PARTS = ["input_text", "output_text", "refusal", "summary_text", "reasoning_text"]
ITEMS = ["message", "function_call", "custom_tool_call", "function_call_output", "reasoning"]
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 200)
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=4)
    | st.sampled_from([*TEXT_PARTS, *ITEMS, "function", "custom", "user", "allowed_tools"])
)
ANY = st.recursive(
    LEAVES,
    lambda node: (
        st.lists(node, max_size=3) | st.dictionaries(st.sampled_from(NAMES), node, max_size=4)
    ),
    max_leaves=12,
)
TEXT = st.text(max_size=5)
PART = st.fixed_dictionaries(
    {"type": st.sampled_from(TEXT_PARTS), "text": TEXT, "refusal": TEXT}, optional={"id": ANY}
)
CONTENT = TEXT | st.lists(PART, max_size=2) | ANY
# Mostly in order, so that what lies behind the first checks is reached as well.
ITEM = st.fixed_dictionaries(
    {"type": st.sampled_from([*ITEMS, None]), "role": st.just("user"), "content": CONTENT},
    optional=dict.fromkeys(("output", "summary"), CONTENT)
    | dict.fromkeys(("name", "arguments", "input", "encrypted_content"), TEXT | ANY)
    | dict.fromkeys(("call_id", "id", "tool_calls", "function_call", "text"), ANY),
)
TOOL = st.fixed_dictionaries(
    {"type": st.sampled_from(["function", "custom"])},
    optional=dict.fromkeys(("name", "parameters", "format", "function", "output_schema"), ANY),
)
NEARLY = st.fixed_dictionaries(
    {"model": st.just("m"), "input": TEXT | st.lists(ITEM, min_size=1, max_size=3)},
    optional={"tools": st.lists(TOOL, max_size=2) | ANY, "instructions": TEXT | ANY}
    | dict.fromkeys(("tool_choice", "text", "include", "reasoning", "stream", "store"), ANY)
    | dict.fromkeys(("stream_options", "max_output_tokens", "prompt_cache_options"), ANY),
)


@settings(deadline=None, max_examples=200)
@given(NEARLY | st.dictionaries(st.sampled_from(NAMES), ANY))
def test_no_json_brings_anything_but_a_request_or_a_refusal(document: dict[str, Any]) -> None:
    request = judged(json.dumps(document).encode())
    if request is None:
        return
    assert count_responses_prompt(request.body, len) > 0
    document = sent(request)
    assert [name for name in document if name.startswith("max_")] == ["max_output_tokens"]
    assert document["store"] is False


@settings(deadline=None)
@given(st.binary() | ANY.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_bring_anything_but_a_request_or_a_refusal(raw: bytes) -> None:
    judged(raw)


def judged(raw: bytes) -> ResponsesRequest | None:
    """The request, or None when it was refused in due form; any other error is raised."""
    refused = None
    try:
        return judge_responses(raw)
    except Refused as error:
        refused = error
    assert refused.case.value.status == 400
    assert refused.message
    return None
