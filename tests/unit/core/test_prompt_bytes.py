"""A prompt that calls itself text never has more tokens than its body has bytes.

The hold of such a prompt is its body's length, so a shape that breaks this would be held too small.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.adapters.tokenizer.bpe import BpeTokenizer
from gateway.core.inference.chat import judge_chat
from gateway.core.inference.completions import judge_completions
from gateway.core.inference.embeddings import judge_embeddings
from gateway.core.inference.request import InferenceRequest
from gateway.core.inference.responses import judge_responses
from gateway.core.json_body import DEPTH_MAX, encode
from gateway.core.models import Model, Weights
from gateway.ports.tokenizer import ENCODINGS

TOKENIZER = BpeTokenizer()
MODELS = [Model("m", "up", name, 9999, 9, 9, 9, Weights()) for name in sorted(ENCODINGS)]
HI: dict[str, Any] = {"role": "u", "content": ""}


def bytes_and_tokens(**body: Any) -> tuple[bool, int, int]:
    """(is text, bytes, most tokens in any vocabulary) of a chat."""
    return judged(judge_chat, {"messages": [HI], **body})


def judged(
    judge: Callable[[bytes], InferenceRequest], body: dict[str, Any]
) -> tuple[bool, int, int]:
    """The same of any body, whose model has a name of one letter, written as short as JSON can."""
    raw = encode({"model": "m", **body}).replace(b"1000000000000000.0", b"1e15")
    request = judge(raw)
    return request.text_only, len(raw), max(_counted(request, model) for model in MODELS)


def _counted(request: InferenceRequest, model: Model) -> int:
    return request.count_prompt(model, lambda text: TOKENIZER.count(text, model.tokenizer))


def with_field(schema: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"a": schema}}
    return {"tools": [{"type": "function", "function": {"name": "f", "parameters": parameters}}]}


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [
        "",
        " ",
        "\n\n",
        "  \n \t",
        "<|endoftext|>",
        "\u200d\U0001f468",
        "1234567",
        "'ll",
        "漢字",
        "\x00",
    ]
)
LEAF = st.none() | st.booleans() | st.integers(-9, 10**9) | st.floats(allow_nan=False) | TEXT
RENDERED = ["type", "properties", "required", "description", "items", "enum", "anyOf", "oneOf"]
KEYS = st.sampled_from([*RENDERED, "title", "$schema", "default", "minimum", "examples", "a", "é"])
SCHEMA = st.recursive(
    LEAF,
    lambda node: st.lists(node, max_size=4) | st.dictionaries(KEYS, node, max_size=4),
    max_leaves=25,
)
FUNCTION = st.fixed_dictionaries(
    {"name": TEXT}, optional={"description": TEXT, "parameters": SCHEMA, "strict": st.booleans()}
)
TOOL = st.builds(lambda function: {"type": "function", "function": function}, FUNCTION)
CALL = st.builds(
    lambda name, written: {"type": "function", "function": {"name": name, "arguments": written}},
    TEXT,
    TEXT,
)
PART = st.builds(lambda text: {"type": "text", "text": text}, TEXT)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool", "x"])},
    optional={
        "content": st.none() | TEXT | st.lists(PART, max_size=3),
        "name": TEXT,
        "refusal": TEXT,
        "tool_calls": st.lists(CALL, max_size=3),
        "function_call": CALL.map(lambda call: call["function"]),
    },
)
BODY = st.fixed_dictionaries(
    {"messages": st.lists(MESSAGE, min_size=1, max_size=4)},
    optional={
        "tools": st.lists(TOOL, max_size=3),
        "functions": st.lists(FUNCTION | SCHEMA, max_size=3),
        "tool_choice": st.sampled_from(["none", "required", {"function": {"name": "f"}}]),
        "response_format": st.builds(
            lambda schema: {"type": "json_schema", "json_schema": schema}, SCHEMA
        ),
    },
)


@settings(deadline=None, max_examples=400)
@given(BODY)
@example(with_field({"enum": [1] * 300}))
@example(with_field({"examples": [1e15] * 300}))
@example(with_field({"anyOf": [True] * 300}))
@example({"functions": [{"name": ""}] * 300})
@example({"functions": [0] * 300})
@example({"messages": [HI] * 300})
@example({"messages": [{"role": ""}] * 300})
def test_a_text_has_no_more_tokens_than_its_body_has_bytes(body: dict[str, Any]) -> None:
    is_text, body_bytes, tokens = bytes_and_tokens(**body)
    assert tokens <= body_bytes or not is_text


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": [1] * 300},
        {"anyOf": [2] * 300},
        {"type": [3] * 300},
        {"examples": [1e15] * 300},
        {"properties": {"b": {"enum": [1] * 300}}},
    ],
    ids=["enum", "anyOf", "type", "float", "nested"],
)
def test_a_schema_that_grows_when_it_is_shown_is_not_held_by_its_bytes(schema: Any) -> None:
    is_text, body_bytes, tokens = bytes_and_tokens(**with_field(schema))
    assert tokens > body_bytes
    assert not is_text
    for elsewhere in (
        {"functions": [{"name": "f", "parameters": schema}]},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}},
    ):
        assert not bytes_and_tokens(**elsewhere)[0]


def test_an_ordinary_tool_is_text() -> None:
    kind = {"type": "integer", "minimum": 1, "maximum": 10, "enum": ["a", "b"]}
    schema = {"properties": {"n": kind}, "required": ["n"], "additionalProperties": False}
    assert bytes_and_tokens(**with_field(schema))[0]


def test_the_deepest_schema_that_is_let_through_is_judged() -> None:
    schema: dict[str, Any] = {"enum": [1]}
    while _depth(schema) < DEPTH_MAX - 8:
        schema = {"properties": {"a": schema}}
    assert not bytes_and_tokens(**with_field(schema))[0]


def _depth(value: Any) -> int:
    text, deepest, depth = json.dumps(value), 0, 0
    for letter in text:
        depth += (letter in "[{") - (letter in "]}")
        deepest = max(deepest, depth)
    return deepest


# --- the other routes --------------------------------------------------------------------------

NAME = st.text("abcXYZ019_-", min_size=1, max_size=64)
IDS = st.sampled_from(["a", "b", "c"])
ITEM = st.one_of(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": TEXT}),
    st.fixed_dictionaries(
        {"type": st.just("function_call"), "call_id": IDS, "name": NAME, "arguments": TEXT}
    ),
    st.fixed_dictionaries(
        {"type": st.just("function_call_output"), "call_id": IDS, "output": TEXT}
    ),
)
RESPONSE = st.fixed_dictionaries(
    {"input": TEXT | st.lists(ITEM, min_size=1, max_size=8)},
    optional={
        "instructions": TEXT,
        "tools": st.lists(
            st.builds(
                lambda name, schema: {"type": "function", "name": name, "parameters": schema},
                NAME,
                SCHEMA,
            ),
            max_size=3,
        ),
        "text": st.builds(
            lambda schema: {"format": {"type": "json_schema", "name": "n", "schema": schema}},
            SCHEMA,
        ),
    },
)
CALLED = {"type": "function_call", "call_id": "a", "name": "Zq-" * 21, "arguments": ""}
OUTPUT = {"type": "function_call_output", "call_id": "a", "output": ""}


@settings(deadline=None, max_examples=300)
@given(RESPONSE)
@example({"input": [CALLED, *[OUTPUT] * 50]})
@example({"input": [CALLED, OUTPUT]})
@example({"input": [{"role": "assistant", "content": ""}] * 50})
@example({"input": ""})
def test_neither_has_a_response_s_input(body: dict[str, Any]) -> None:
    is_text, body_bytes, tokens = judged(judge_responses, body)
    assert tokens <= body_bytes or not is_text


def test_a_name_that_counts_again_with_each_output_is_not_held_by_its_bytes() -> None:
    assert judged(judge_responses, {"input": [CALLED, OUTPUT]})[0]
    assert not judged(judge_responses, {"input": [CALLED, OUTPUT, OUTPUT]})[0]


INPUTS = st.one_of(
    TEXT,
    st.lists(TEXT, min_size=1, max_size=9),
    st.lists(st.integers(0, 9), min_size=1, max_size=9),
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=9), min_size=1, max_size=9),
)


@settings(deadline=None)
@given(INPUTS, TEXT)
@example(["a"] * 50, "a long suffix " * 9)
@example([""] * 50, "")
def test_neither_have_plain_inputs(inputs: Any, suffix: str) -> None:
    is_text, body_bytes, tokens = judged(judge_completions, {"prompt": inputs, "suffix": suffix})
    assert tokens <= body_bytes or not is_text
    if inputs not in ("", []):
        is_text, body_bytes, tokens = judged(judge_embeddings, {"input": inputs})
        assert tokens <= body_bytes or not is_text


def test_a_suffix_of_several_prompts_is_not_held_by_its_bytes() -> None:
    assert judged(judge_completions, {"prompt": "a", "suffix": "b"})[0]
    assert judged(judge_completions, {"prompt": ["a"] * 9})[0]
    assert not judged(judge_completions, {"prompt": ["a", "b"], "suffix": "b"})[0]
