"""Counts of prompts against what OpenAI's API has reported for them.

`measured_prompts.json` holds requests with the `usage.prompt_tokens` that the API answered, as
published by the OpenAI cookbook, hmarr/openai-chat-tokens, pamelafox/openai-messages-token-helper
(all MIT), in an issue of forestwanglin/openai-java and at community.openai.com/t/538914.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.adapters.tokenizer.bpe import BpeTokenizer
from gateway.core.prompt.chat import (
    MESSAGE_TOKENS,
    REPLY_TOKENS,
    count_chat_prompt,
    count_content,
    render_tools,
)

MEASURED = json.loads(Path(__file__).with_name("measured_prompts.json").read_text("utf-8"))
PLAIN = ("system", "user")
ARGUMENTS = '{"location": "Boston"}'
CALL = {"type": "function", "function": {"name": "look", "arguments": ARGUMENTS}}


def with_tool(**properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties}
    function = {"name": "look", "description": "Look it up", "parameters": parameters}
    return {"messages": [], "tools": [{"type": "function", "function": function}]}


@pytest.fixture(scope="module")
def tokenizer() -> BpeTokenizer:
    return BpeTokenizer()


def letters(text: str) -> int:
    """A count that needs no vocabulary: every character is a token."""
    return len(text)


@pytest.mark.parametrize("row", MEASURED, ids=lambda row: row["source"])
def test_a_chat_counts_as_openai_reports(tokenizer: BpeTokenizer, row: dict[str, Any]) -> None:
    body, reported = row["body"], row["prompt_tokens"]
    counted = count_chat_prompt(body, lambda text: tokenizer.count(text, row["encoding"]))
    is_plain = all("content" in m and m["role"] in PLAIN for m in body["messages"])
    slack = 0 if is_plain and "tools" not in body else 2
    assert reported <= counted <= reported + slack


def test_text_in_parts_counts_as_text(tokenizer: BpeTokenizer) -> None:
    parts = [{"type": "text", "text": "hello"}, {"type": "refusal", "refusal": "no"}]
    assert count_content(parts, letters) == 7
    body = {"messages": [{"role": "user", "content": parts[:1]}]}
    assert count_chat_prompt(body, lambda text: tokenizer.count(text, "o200k_base")) == 8


def test_functions_and_tools_are_shown_alike() -> None:
    tools = with_tool(place={"type": "string"})
    assert render_tools(tools) == render_tools({"functions": [tools["tools"][0]["function"]]})
    assert render_tools({"tools": []}) == ""


def test_tools_are_shown_as_typescript() -> None:
    body = with_tool(
        unit={"type": ["string", "null"], "description": "Which"},
        near={"anyOf": [{"type": "integer"}, {"$ref": "#/$defs/place"}]},
    )
    body["tools"][0]["function"]["parameters"]["required"] = ["unit"]
    assert render_tools(body) == (
        "namespace functions {\n\n// Look it up\ntype look = (_: {\n// Which\n"
        'unit: string | null,\nnear?: number | // {"$ref":"#/$defs/place"}\nany,\n'
        "}) => any;\n\n} // namespace functions"
    )


def test_no_part_of_a_schema_goes_uncounted() -> None:
    secret = "x" * 1000
    for hidden in (
        {"pattern": secret},
        {"default": {"deep": [secret]}},
        {"$defs": {"a": {"description": secret}}},
        {"additionalProperties": {"description": secret}},
        {"items": {"enum": [secret]}},
        {"items": {"type": "string", "description": secret}},
        {"anyOf": [{"type": "string", "description": secret}]},
        {"allOf": [{"const": secret}]},
        {"properties": {"a": {"oneOf": [{"description": secret, "examples": [secret]}]}}},
    ):
        body = with_tool(a={"type": "object", **hidden})
        assert count_chat_prompt(body, letters) > 1000, hidden
    described = with_tool(a={"type": "string"})
    described["tools"][0]["function"]["parameters"]["description"] = secret
    assert count_chat_prompt(described, letters) > 1000
    custom = {"type": "custom", "custom": {"name": "g", "format": {"definition": secret}}}
    assert count_chat_prompt({"messages": [], "tools": [custom]}, letters) > 1000
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"const": secret}}}
    assert count_chat_prompt({"messages": [], "response_format": schema}, letters) > 1000


def test_several_calls_cost_their_wrapping_and_all_their_arguments() -> None:
    one = count_chat_prompt({"messages": [{"role": "a", "tool_calls": [CALL]}]}, letters)
    two = count_chat_prompt({"messages": [{"role": "a", "tool_calls": [CALL, CALL]}]}, letters)
    three = count_chat_prompt({"messages": [{"role": "a", "tool_calls": [CALL] * 3}]}, letters)
    each = len("look" + ARGUMENTS) + 9
    assert (two - one, three - two) == (each + 20 + 9 - 5, each)


def test_the_schema_of_an_answer_counts_as_its_json_without_what_only_steers() -> None:
    kept = {"type": "object", "properties": {"required": {"type": "string", "enum": ["a"]}}}
    strict = {**kept, "required": ["required"], "additionalProperties": False, "$schema": "x" * 99}
    bare = count_chat_prompt({"messages": []}, letters)
    for schema in (kept, strict):
        wanted = {"name": "abc", "strict": True, "description": "de", "schema": schema}
        body = {"messages": [], "response_format": {"type": "json_schema", "json_schema": wanted}}
        compact = json.dumps(kept, separators=(",", ":"))
        assert count_chat_prompt(body, letters) == bare + 9 + len("abcde" + compact)


def test_pictures_and_files_are_never_counted_as_text() -> None:
    data = "data:image/png;base64," + "A" * 100_000
    for part in (
        {"type": "image_url", "image_url": {"url": data}},
        {"type": "file", "file": {"file_data": data}},
    ):
        content = [{"type": "text", "text": "what?"}, part]
        assert count_content(content, letters) == 5


def test_a_recording_is_counted_by_its_size_whatever_stands_beside_it() -> None:
    sound = {"data": "A" * 100_000, "format": "mp3"}
    for beside in ({}, {"text": "short"}, {"refusal": ""}):
        part = {"type": "input_audio", "input_audio": sound, **beside}
        assert count_content([part], letters) == 750


def test_counting_is_linear_in_the_request() -> None:
    deep: Any = {"type": "string", "description": "d"}
    for _ in range(30):
        deep = {"type": "object", "properties": {"p": deep}}

    def written(copies: int) -> int:
        return len(render_tools(with_tool(**{str(n): deep for n in range(copies)})))

    assert written(2000) < 2.2 * written(1000)


NAMES = [
    "role",
    "content",
    "name",
    "tool_calls",
    "function",
    "arguments",
    "text",
    "type",
    "parameters",
    "properties",
    "items",
    "enum",
    "anyOf",
    "required",
    "description",
    "json_schema",
    "custom",
    "function_call",
    "refusal",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda node: (
        st.lists(node, max_size=3) | st.dictionaries(st.sampled_from(NAMES), node, max_size=4)
    ),
    max_leaves=20,
)
FIELDS = st.sampled_from(
    ["messages", "tools", "functions", "tool_choice", "function_call", "response_format"]
)


@settings(deadline=None)
@given(st.dictionaries(FIELDS, JSON))
def test_no_body_is_too_odd_to_count(body: dict[str, Any]) -> None:
    assert count_chat_prompt(body, letters) >= REPLY_TOKENS


@settings(deadline=None)
@given(st.lists(JSON, max_size=4))
def test_every_message_costs_its_frame(messages: list[Any]) -> None:
    counted = count_chat_prompt({"messages": messages}, letters)
    assert counted >= REPLY_TOKENS + MESSAGE_TOKENS * len(messages)
