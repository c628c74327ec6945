"""The official openai client, sync and async, told nothing but base_url and api_key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from tests.gateway.running_gateway import (
    MODEL,
    MODEL_THAT_COUNTS_NOTHING,
    MakeGateway,
    RunningGateway,
    prompt,
)

Client = Callable[[str], openai.OpenAI]

HELLO = "Hello! Your words arrived, and here is an answer."  # what the stand-in writes
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a town",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}},
    },
}


def says(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


def text_of(chunks: list[ChatCompletionChunk], index: int = 0) -> str:
    choices = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
    return "".join(choice.delta.content or "" for choice in choices)


def test_a_chat_is_answered_and_booked_as_it_was_reported(
    gateway: RunningGateway, sdk: Client
) -> None:
    user, key = gateway.new_user()
    answer = sdk(key).chat.completions.create(model=MODEL, messages=says("Hello"))
    assert answer.choices[0].message.content == HELLO
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer._request_id is not None
    (row,) = gateway.ledger_rows(user)
    assert row["event_id"] == answer._request_id
    assert (row["kind"], row["quality"], row["outcome"]) == ("usage", "measured", "done")
    assert (row["stream"], row["status"], row["model"]) == (False, 200, MODEL)
    assert row["prompt_tokens"] == answer.usage.prompt_tokens
    assert row["output_tokens"] == answer.usage.completion_tokens == 12
    assert row["charged_tokens"] == answer.usage.total_tokens
    assert row["held_tokens"] == answer.usage.prompt_tokens + 4096


async def test_the_async_client_is_answered_and_streams_alike(gateway: RunningGateway) -> None:
    user, key = gateway.new_user()
    async with openai.AsyncOpenAI(base_url=f"{gateway.proxy}/v1", api_key=key) as client:
        answer = await client.chat.completions.create(model=MODEL, messages=says("Hello"))
        stream = await client.chat.completions.create(
            model=MODEL, messages=says("Hello"), stream=True
        )
        chunks = [chunk async for chunk in stream]
    assert answer.choices[0].message.content == text_of(chunks) == HELLO
    rows = gateway.ledger_rows(user, 2)
    assert [row["stream"] for row in rows] == [False, True]
    assert rows[0]["charged_tokens"] == rows[1]["charged_tokens"]
    assert {row["quality"] for row in rows} == {"measured"}


@pytest.mark.parametrize("asked", [None, {"include_usage": False}])
def test_a_stream_that_did_not_ask_for_usage_shows_none_but_is_measured(
    gateway: RunningGateway, sdk: Client, asked: Any
) -> None:
    user, key = gateway.new_user()
    options = {} if asked is None else {"stream_options": asked}
    chunks = list(
        sdk(key).chat.completions.create(
            model=MODEL, messages=says("@stand-in write=50"), stream=True, **options
        )
    )
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"
    (row,) = gateway.ledger_rows(user)
    assert (row["quality"], row["output_tokens"], row["stream"]) == ("measured", 50, True)
    assert gateway.stand_in.last()["body"]["stream_options"]["include_usage"] is True


def test_a_stream_that_asked_for_usage_shows_what_the_ledger_books(
    gateway: RunningGateway, sdk: Client
) -> None:
    user, key = gateway.new_user()
    *chunks, last = sdk(key).chat.completions.create(
        model=MODEL,
        messages=says("@stand-in write=50"),
        stream=True,
        stream_options={"include_usage": True, "include_obfuscation": False},
    )
    assert text_of(chunks).startswith(HELLO)
    assert last.choices == []
    assert last.usage is not None
    (row,) = gateway.ledger_rows(user)
    assert row["charged_tokens"] == last.usage.total_tokens
    assert row["output_tokens"] == last.usage.completion_tokens == 50
    options = gateway.stand_in.last()["body"]["stream_options"]
    assert options == {"include_usage": True, "include_obfuscation": False}


def test_a_stream_carries_the_whole_text_and_ends_in_done(gateway: RunningGateway) -> None:
    _, key = gateway.new_user()
    words = "@stand-in write=300"
    whole = gateway.chat(key, words).json["choices"][0]["message"]["content"]
    reply = gateway.chat(key, prompt(words, stream=True))
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert "x-quota-charged-tokens" not in reply.headers
    events = reply.body.decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    chunks = [ChatCompletionChunk.model_validate_json(event[6:]) for event in events[:-2]]
    assert text_of(chunks) == whole


def test_two_choices_are_two_answers_held_and_charged_as_two(
    gateway: RunningGateway, sdk: Client
) -> None:
    user, key = gateway.new_user()
    completions = sdk(key).chat.completions
    answer = completions.create(model=MODEL, messages=says("Hello"), n=2, max_tokens=30)
    assert [choice.message.content for choice in answer.choices] == [HELLO, HELLO]
    chunks = list(
        completions.create(model=MODEL, messages=says("Hello"), n=2, max_tokens=30, stream=True)
    )
    assert text_of(chunks, 0) == text_of(chunks, 1) == HELLO
    first, second = gateway.ledger_rows(user, 2)
    for row in (first, second):
        assert (row["output_tokens"], row["quality"]) == (24, "measured")
    assert first["held_tokens"] == first["prompt_tokens"] + 2 * 30
    assert second["held_tokens"] > first["held_tokens"], "with so much left, bytes are held"


def test_a_conversation_with_tools_goes_up_as_it_was_said(
    gateway: RunningGateway, sdk: Client
) -> None:
    user, key = gateway.new_user()
    function = {"name": "weather", "arguments": '{"town":"Zürich"}'}
    conversation: Any = [
        {"role": "user", "content": "What is the weather in Zürich?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny, 21 °C"},
    ]
    answer = sdk(key).chat.completions.create(
        model=MODEL, messages=conversation, tools=[TOOL], tool_choice="auto", temperature=0.25
    )
    assert answer.choices[0].message.content == HELLO
    body = gateway.stand_in.last()["body"]
    assert body["messages"] == conversation
    assert (body["tools"], body["tool_choice"], body["temperature"]) == ([TOOL], "auto", 0.25)
    (row,) = gateway.ledger_rows(user)
    assert row["held_tokens"] > row["prompt_tokens"] + 4096  # the tools, which cost tokens too


def test_a_refusal_is_raised_once_although_the_client_retries_twice(
    gateway: RunningGateway, sdk: Client
) -> None:
    user, key = gateway.new_user("free", 100_000)
    client = sdk(key)
    assert client.max_retries == 2
    labels = {"tier": "free", "decision": "refused", "reason": "insufficient_quota"}
    before = gateway.metric("decisions_total", **labels)
    with pytest.raises(openai.RateLimitError) as raised:
        client.chat.completions.create(model=MODEL, messages=says("Hello"))
    error = raised.value
    assert (error.code, error.type) == ("insufficient_quota", "insufficient_quota")
    assert "upgrade to the tier 'lite'" in error.message
    # This client gives up on a long Retry-After as well; others only when they are told.
    assert error.response.headers["x-should-retry"] == "false"
    assert isinstance(error.body, dict)
    assert error.body["quota"]["used_tokens"] == 100_000
    assert gateway.metric("decisions_total", **labels) == before + 1
    assert gateway.stand_in.served(user)["requests"] == 0
    gateway.ledger_rows(user, 1)  # the adjustment of the set-up, and no more


def test_a_refused_stream_is_raised_before_its_first_chunk(
    gateway: RunningGateway, sdk: Client
) -> None:
    _, key = gateway.new_user("free", 100_000)
    with pytest.raises(openai.RateLimitError, match="this month"):
        sdk(key).chat.completions.create(model=MODEL, messages=says("Hello"), stream=True)


def test_who_leaves_a_stream_is_charged_what_the_upstream_measured(
    gateway: RunningGateway, sdk: Client
) -> None:
    user, key = gateway.new_user()
    # The rest comes in 17 pieces: one alone could be written before the leaving is noticed.
    words = "@stand-in write=80 chunk_ms=20 hold=leave hold_after=3"
    stream = sdk(key).chat.completions.create(model=MODEL, messages=says(words), stream=True)
    next(iter(stream))
    gateway.stand_in.await_held("leave")
    assert gateway.shown(user)["open_holds"] == 1
    stream.close()
    gateway.stand_in.release("leave")
    (row,) = gateway.ledger_rows(user)
    assert (row["quality"], row["outcome"]) == ("measured", "client_gone")
    assert row["output_tokens"] == 80
    served = gateway.stand_in.served(user)
    assert served["prompt_tokens"] + served["completion_tokens"] == row["charged_tokens"]
    assert gateway.shown(user)["open_holds"] == 0


def test_who_leaves_is_charged_what_was_relayed_where_nobody_reads_on(
    impatient: RunningGateway,
) -> None:
    user, key = impatient.new_user()
    words = "@stand-in write=4000 chunk_ms=20 hold=leave_now hold_after=3"
    with openai.OpenAI(base_url=f"{impatient.proxy}/v1", api_key=key) as client:
        stream = client.chat.completions.create(model=MODEL, messages=says(words), stream=True)
        next(iter(stream))
        impatient.stand_in.await_held("leave_now")
        stream.close()
        impatient.stand_in.release("leave_now")
        (row,) = impatient.ledger_rows(user)
    assert (row["quality"], row["outcome"]) == ("partial", "client_gone")
    assert row["charged_tokens"] == row["prompt_tokens"] + row["output_tokens"]
    # Three chunks of 4 tokens were relayed; the fourth found nobody there.
    assert 12 <= row["output_tokens"] <= 16


def test_an_upstream_that_counts_nothing_is_counted_here(
    gateway: RunningGateway, sdk: Client
) -> None:
    user, key = gateway.new_user()
    chunks = list(
        sdk(key).chat.completions.create(
            model=MODEL_THAT_COUNTS_NOTHING, messages=says("@stand-in write=50"), stream=True
        )
    )
    assert "stream_options" not in gateway.stand_in.last()["body"]
    assert all(chunk.usage is None for chunk in chunks)
    (row,) = gateway.ledger_rows(user)
    assert (row["quality"], row["outcome"], row["output_tokens"]) == ("estimated", "done", 50)


def test_a_name_that_a_pattern_allows_is_called_and_its_entry_is_booked(
    start_gateway: MakeGateway,
) -> None:
    entry = {"upstream": "openai", "tokenizer": "o200k_base", "context_tokens": 1000}
    entry |= {"output_tokens_max": 100, "output_tokens_default": 50}
    sized = {"upstream_model": "acme/small", **entry}
    gateway = start_gateway(models={"own-*": entry, "small": sized})
    user, key = gateway.new_user()
    with openai.OpenAI(base_url=f"{gateway.proxy}/v1", api_key=key) as client:
        for name, sent in (("own-7b", "own-7b"), ("small", "acme/small")):
            client.chat.completions.create(model=name, messages=says("Hello"))
            assert gateway.stand_in.last()["body"]["model"] == sent
        assert "own-*" not in {model.id for model in client.models.list()}
        assert client.models.retrieve("own-7b").id == "own-7b"
        with pytest.raises(openai.PermissionDeniedError, match="'other-7b'"):
            client.models.retrieve("other-7b")
    assert [row["model"] for row in gateway.ledger_rows(user, 2)] == ["own-*", "small"]
    assert gateway.metric("unpriced_total") == 2
    assert gateway.metric("tokens_total", model="own-*") > 0


def test_the_models_are_those_of_the_tier_and_cost_nothing(
    gateway: RunningGateway, impatient: RunningGateway, sdk: Client
) -> None:
    user, key = gateway.new_user("free", 100_000)
    client = sdk(key)
    assert {model.id for model in client.models.list()} == set(gateway.settings.models)
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.PermissionDeniedError, match="gpt-7"):
        client.models.retrieve("gpt-7")
    assert gateway.stand_in.served(user)["requests"] == 0
    _, key = impatient.new_user("free")
    with openai.OpenAI(base_url=f"{impatient.proxy}/v1", api_key=key) as client:
        assert [model.id for model in client.models.list()] == [MODEL]
