"""Counts of /responses prompts: what OpenAI reports for a kind of item, or a little more.

The figures are what OpenAI's API has reported; the module that counts says who recorded them.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.adapters.tokenizer.bpe import BpeTokenizer
from gateway.core.prompt.chat import MESSAGE_TOKENS, REPLY_TOKENS
from gateway.core.prompt.responses import count_responses_prompt, count_sealed

CALL = {"type": "function_call", "call_id": "c", "name": "find", "arguments": '{"a":1}'}
OUTPUT = {"type": "function_call_output", "call_id": "c", "output": "found"}


@pytest.fixture(scope="module")
def tokenizer() -> BpeTokenizer:
    return BpeTokenizer()


def letters(text: str) -> int:
    """A count that needs no vocabulary: every character is a token."""
    return len(text)


def count(*items: Any, **fields: Any) -> int:
    return count_responses_prompt({"input": list(items), **fields}, letters)


def said(*parts: Any, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": list(parts)}


def text(words: str, kind: str = "input_text") -> dict[str, Any]:
    return {"type": kind, "text": words}


def test_a_plain_question_costs_its_text_and_seven(tokenizer: BpeTokenizer) -> None:
    def counted(given: Any) -> int:
        return count_responses_prompt(
            {"input": given}, lambda text: tokenizer.count(text, "o200k_base")
        )

    question = "Which rivers flow into the Black Sea?"
    expected = tokenizer.count(question, "o200k_base") + 7
    assert counted(question) == expected
    assert counted([{"role": "user", "content": question}]) == expected
    assert counted([{"type": "message", **said(text(question))}]) == expected


def test_instructions_are_one_message_more(tokenizer: BpeTokenizer) -> None:
    spoken = count(said(text("Hi")), instructions="Be brief.") - count(said(text("Hi")))
    assert spoken == MESSAGE_TOKENS + len("developer" + "Be brief.")
    assert count(said(text("Hi")), instructions=None) == count(said(text("Hi")))


@pytest.mark.parametrize("kind", ["input_text", "output_text", "summary_text", "reasoning_text"])
def test_text_in_parts_counts_as_text(kind: str) -> None:
    assert count(said(text("Hello", kind), text(" world", kind))) == count(
        {"role": "user", "content": "Hello world"}
    )


def test_what_the_assistant_said_names_its_channel() -> None:
    user, assistant = (count(said(text("Hi"), role=role)) for role in ("user", "assistant"))
    assert assistant - user == len("assistant") - len("user") + 2


def test_a_call_and_its_output_cost_their_texts_and_frames() -> None:
    before = count(said(text("Hi")))
    called = count(said(text("Hi")), CALL)
    assert called - before >= MESSAGE_TOKENS + len("find" + '{"a":1}')
    answered = count(said(text("Hi")), CALL, OUTPUT)
    # The output is headed by the name of the function, which it gives by the call's id.
    assert answered - called == MESSAGE_TOKENS + len("tool" + "found" + "find") + 6
    custom = {"type": "custom_tool_call", "call_id": "c", "name": "find", "input": '{"a":1}'}
    assert count(said(text("Hi")), custom) == called
    parts = {**OUTPUT, "output": [text("fou"), text("nd")]}
    assert count(said(text("Hi")), CALL, parts) == answered


def test_a_name_that_many_outputs_refer_to_counts_once_and_within_bounds() -> None:
    seen: list[str] = []

    def counting(words: str) -> int:
        seen.append(words)
        return len(words)

    outputs = [OUTPUT] * 100
    call = {**CALL, "name": "x" * 100_000}
    count_responses_prompt({"input": [call, *outputs]}, counting)
    assert sum(map(len, seen)) < 2 * 100_000


@pytest.mark.parametrize(
    ("chars", "reported"),
    # What the item added to the prompts of gpt-5, gpt-5-mini and gpt-5.5, beside its call.
    [(1100, 40), (1252, 73), (1932, 197), (2808, 292), (2916, 320), (9572, 1820)],
)
def test_sealed_reasoning_counts_by_its_length(chars: int, reported: int) -> None:
    item = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x" * chars}
    assert reported <= count_sealed(item) <= 1.4 * reported + 60
    assert count(said(text("Hi")), item) - count(said(text("Hi"))) <= count_sealed(item) + 15


def test_a_summary_counts_where_there_is_nothing_else() -> None:
    summary = {"type": "reasoning", "summary": [text("a" * 1000, "summary_text")]}
    assert count(summary) > 1000
    assert count({**summary, "encrypted_content": "x" * 500}) < 100
    thoughts = {"type": "reasoning", "content": [text("a" * 1000, "reasoning_text")]}
    assert count(thoughts) > 1000


def test_tools_count_as_openai_reports_them(tokenizer: BpeTokenizer) -> None:
    def counted(*tools: dict[str, Any]) -> int:
        body = {"input": "Which rivers flow into the Black Sea?", "tools": list(tools)}
        return count_responses_prompt(body, lambda text: tokenizer.count(text, "o200k_base"))

    numbers = {"a": {"type": "number"}, "b": {"type": "number"}}
    parameters = {"type": "object", "properties": numbers, "required": ["a", "b"]}
    add = {"type": "function", "name": "add", "description": "Add two numbers together."}
    assert 32 <= counted({**add, "parameters": parameters}) - counted() <= 40
    run = {"type": "custom", "name": "code_exec", "description": "Executes arbitrary Python code."}
    assert 44 <= counted(run) - counted() <= 52


def test_no_part_of_a_tool_or_a_format_goes_uncounted() -> None:
    secret = "x" * 1000
    schema = {"type": "object", "properties": {"a": {"const": secret}}}
    for tool in (
        {"type": "function", "name": "f", "description": secret},
        {"type": "function", "name": "f", "parameters": schema},
        {"type": "function", "name": "f", "output_schema": schema},
        {"type": "custom", "name": "f", "format": {"type": "grammar", "definition": secret}},
    ):
        assert count(said(text("Hi")), tools=[tool]) > 1000, tool
    for shown in ({"schema": schema}, {"schema": {}, "description": secret}):
        wanted = {"format": {"type": "json_schema", "name": "n", **shown}}
        assert count(said(text("Hi")), text=wanted) > 1000, wanted
    chosen = {"type": "allowed_tools", "tools": [{"type": "function", "name": secret}]}
    assert count(said(text("Hi")), tool_choice=chosen) > 1000


def test_a_plain_format_costs_nothing() -> None:
    for plain in ({"format": {"type": "text"}}, {"verbosity": "low"}, None, "text"):
        assert count(said(text("Hi")), text=plain) == count(said(text("Hi")))


NAMES = sorted(
    {"type", "role", "content", "text", "refusal", "name", "arguments", "input", "output"}
    | {"summary", "encrypted_content", "call_id", "format", "schema", "description", "tools"}
    | {"parameters", "properties", "output_schema", "custom", "function"}
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    # Mostly in order, so that what lies behind the first checks is reached as well.
    | st.sampled_from(["function_call", "function_call_output", "reasoning", "custom", "message"]),
    lambda node: (
        st.lists(node, max_size=3) | st.dictionaries(st.sampled_from(NAMES), node, max_size=4)
    ),
    max_leaves=20,
)
FIELDS = st.sampled_from(["input", "tools", "tool_choice", "text", "instructions"])


@settings(deadline=None)
@given(st.dictionaries(FIELDS, JSON))
def test_no_body_is_too_odd_to_count(body: dict[str, Any]) -> None:
    assert count_responses_prompt(body, letters) >= REPLY_TOKENS


@settings(deadline=None)
@given(st.lists(JSON, max_size=4))
def test_every_item_costs_its_frame(items: list[Any]) -> None:
    assert count(*items) >= REPLY_TOKENS + MESSAGE_TOKENS * len(items)
