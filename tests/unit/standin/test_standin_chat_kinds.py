"""Chats beyond plain text: calls, structured output, pictures, sound, and the finer usage."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionFunctionToolParam,
    ChatCompletionUserMessageParam,
)
from pydantic import BaseModel

from tests.unit.standin.standin_client import Client, body, count_words, prompt_of
from tests.unit.standin.strict_shapes import strictly

GREETING = "Hello! Your words arrived, and here is an answer."
WEATHER: ChatCompletionFunctionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}
NOW: ChatCompletionFunctionToolParam = {"type": "function", "function": {"name": "now"}}


class Answer(BaseModel):
    words: str
    numbers: list[int]


@pytest.fixture
async def sdk(client: Client) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=client.url, api_key="sk-any", max_retries=0) as sdk:
        yield sdk


def user(text: str) -> list[ChatCompletionUserMessageParam]:
    return [{"role": "user", "content": text}]


def order(directives: str, **parameters: Any) -> dict[str, Any]:
    return body(f"hi\n@stand-in {directives}", **parameters)


async def test_functions_are_called_in_turn(client: Client) -> None:
    asked = order("calls=3 write=2", tools=[WEATHER, NOW])
    answer = await client.chat(asked)
    completion: ChatCompletion = strictly(ChatCompletion, answer)
    [choice] = completion.choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    calls = answer["choices"][0]["message"]["tool_calls"]
    assert [call["function"]["name"] for call in calls] == ["get_weather", "now", "get_weather"]
    assert json.loads(calls[0]["function"]["arguments"]) == {"city": "Hello!", "days": 1}
    assert calls[1]["function"]["arguments"] == "{}"
    assert len({call["id"] for call in calls}) == 3
    written = sum(
        count_words(call["function"]["name"]) + count_words(call["function"]["arguments"])
        for call in calls
    )
    assert answer["usage"]["completion_tokens"] == written


async def test_calls_stream_in_deltas(client: Client) -> None:
    asked = order("calls=2 write=9", tools=[WEATHER], n=2)
    chunks = await client.chunks(asked)
    for chunk in chunks:
        strictly(ChatCompletionChunk, chunk)
    assert chunks[0]["choices"][0]["delta"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
    }
    written: dict[tuple[int, int], str] = {}
    opened = []
    for chunk in chunks:
        [choice] = chunk["choices"]
        for call in choice["delta"].get("tool_calls", ()):
            at = choice["index"], call["index"]
            written[at] = written.get(at, "") + call["function"]["arguments"]
            opened += [(at, call["function"]["name"])] if "id" in call else []
    assert sorted(opened) == [((n, at), "get_weather") for n in (0, 1) for at in (0, 1)]
    assert {tuple(json.loads(arguments)) for arguments in written.values()} == {("city", "days")}
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[-2:]] == ["tool_calls"] * 2


async def test_the_client_collects_calls_of_a_stream(sdk: openai.AsyncOpenAI) -> None:
    async with sdk.chat.completions.stream(
        model="gpt-4o-mini", messages=user("@stand-in calls=2"), tools=[WEATHER]
    ) as stream:
        completion = await stream.get_final_completion()
    calls = completion.choices[0].message.tool_calls or []
    assert [call.function.name for call in calls] == ["get_weather"] * 2
    assert calls[1].function.parsed_arguments == {"city": GREETING, "days": 1}


async def test_calls_are_cut_at_the_cap(client: Client) -> None:
    asked = order("calls=3 write=30", tools=[WEATHER], max_completion_tokens=20)
    answer = await client.chat(asked)
    [choice] = answer["choices"]
    assert choice["finish_reason"] == "length"
    assert len(choice["message"]["tool_calls"]) == 1
    assert 18 <= answer["usage"]["completion_tokens"] <= 20


async def test_a_request_can_insist_on_a_call(client: Client) -> None:
    named = {"type": "function", "function": {"name": "now"}}
    for choice, name in (("required", "get_weather"), (named, "now")):
        answer = await client.chat(body(tools=[WEATHER, NOW], tool_choice=choice))
        [call] = answer["choices"][0]["message"]["tool_calls"]
        assert call["function"]["name"] == name
    other = {"type": "function", "function": {"name": "other"}}
    status, error = await client.refused(body(tools=[NOW], tool_choice=other))
    assert (status, error["param"]) == (400, "tool_choice")


async def test_structured_output_is_parsed(sdk: openai.AsyncOpenAI) -> None:
    parsed = await sdk.chat.completions.parse(
        model="gpt-4o-mini", messages=user("hi"), response_format=Answer
    )
    assert parsed.choices[0].message.parsed == Answer(words=GREETING, numbers=[1])
    async with sdk.chat.completions.stream(
        model="gpt-4o-mini", messages=user("hi"), response_format=Answer
    ) as stream:
        completion = await stream.get_final_completion()
    assert completion.choices[0].message.parsed == Answer(words=GREETING, numbers=[1])


async def test_any_json_may_be_asked_for(client: Client) -> None:
    answer = await client.chat(body(response_format={"type": "json_object"}))
    assert json.loads(answer["choices"][0]["message"]["content"]) == {"answer": GREETING}


async def test_json_is_cut_at_the_cap(client: Client) -> None:
    asked = order("write=50", response_format={"type": "json_object"}, max_tokens=20)
    answer = await client.chat(asked)
    [choice] = answer["choices"]
    assert choice["finish_reason"] == "length"
    assert count_words(choice["message"]["content"]) == answer["usage"]["completion_tokens"] <= 20


async def test_a_refusal_is_told_as_one(client: Client) -> None:
    asked = order("refuse", response_format={"type": "json_object"})
    message = (await client.chat(asked))["choices"][0]["message"]
    assert (message["content"], message["refusal"]) == (None, GREETING)
    deltas = [chunk["choices"][0]["delta"] for chunk in await client.chunks(asked)]
    assert "".join(delta.get("refusal") or "" for delta in deltas) == GREETING
    assert not any(delta.get("content") for delta in deltas)


async def test_pictures_are_counted(client: Client) -> None:
    sent = body()
    sent["messages"][0]["content"] = [
        {"type": "text", "text": "hi"},
        {"type": "image_url", "image_url": {"url": "data:,", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://example.test/a.png"}},
    ]
    usage = (await client.chat(sent))["usage"]
    assert usage["prompt_tokens"] == prompt_of("hi") + 85 + 765
    assert usage["prompt_tokens_details"]["image_tokens"] == 85 + 765


async def test_sound_goes_in_and_comes_out(client: Client) -> None:
    spoken: dict[str, Any] = {
        "modalities": ["text", "audio"],
        "audio": {"voice": "alloy", "format": "wav"},
    }
    sent = body(**spoken)
    sound = {"type": "input_audio", "input_audio": {"data": "A" * 8_000, "format": "wav"}}
    sent["messages"][0]["content"] = [{"type": "text", "text": "hi"}, sound]
    answer = await client.chat(sent)
    strictly(ChatCompletion, answer)
    message = answer["choices"][0]["message"]
    assert (message["content"], message["audio"]["transcript"]) == (None, GREETING)
    data = base64.b64decode(message["audio"]["data"])
    assert answer["usage"]["prompt_tokens_details"]["audio_tokens"] == 2
    assert answer["usage"]["completion_tokens_details"]["audio_tokens"] == 12
    chunks = await client.chunks({**sent, "modalities": ["audio"]})
    heard = [strictly(ChatCompletionChunk, chunk).choices[0].delta.audio for chunk in chunks]
    assert "".join(each.transcript for each in heard if each) == GREETING
    assert b"".join(base64.b64decode(each.data) for each in heard if each) == data
    status, error = await client.refused(body(modalities=["audio"]))
    assert (status, error["param"]) == (400, "audio")


async def test_finer_usage_is_told_on_demand(client: Client) -> None:
    asked = order("write=5 think=20 cached=6 cache_write=2 predicted=3/4")
    usage = (await client.chat(asked))["usage"]
    assert usage["completion_tokens"] == 5 + 20 + 4
    assert usage["prompt_tokens_details"] == {
        "cached_tokens": 6,
        "audio_tokens": 0,
        "cache_write_tokens": 2,
    }
    assert usage["completion_tokens_details"] == {
        "reasoning_tokens": 20,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 3,
        "rejected_prediction_tokens": 4,
    }


async def test_thoughts_eat_the_cap_and_are_not_shown(client: Client) -> None:
    asked = order("write=20 think=10", max_completion_tokens=16, n=2)
    answer = await client.chat(asked)
    assert answer["usage"]["completion_tokens"] == 32
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 20
    for choice in answer["choices"]:
        assert (count_words(choice["message"]["content"]), choice["finish_reason"]) == (6, "length")
        assert "reasoning_content" not in choice["message"]
    await client.chunks(asked, x_client_request_id="thinks")
    assert (await client.ended("thinks"))["completion_tokens"] == 32


async def test_metadata_belongs_to_what_is_stored(client: Client) -> None:
    assert await client.chat(body(store=True, metadata={"a": "b"}))
    assert await client.chat(body(store=False, metadata={}))
    status, error = await client.refused(body(metadata={"a": "b"}))
    assert (status, "only allowed when 'store' is enabled" in error["message"]) == (400, True)
    for pairs in ({"a": 1}, {"a" * 65: "b"}, {"a": "b" * 513}, {str(n): "" for n in range(17)}):
        status, _ = await client.refused(body(store=True, metadata=pairs))
        assert status == 400


@pytest.mark.parametrize(
    ("sent", "param"),
    [
        (order("calls=1"), "messages"),
        (order("postscript"), "messages"),
        (order("flag=hate"), "messages"),
        (body(tools=[{"function": {}}]), "tools[0].type"),
        (body(tools=[{"type": "function", "function": {}}]), "tools[0].function.name"),
        (
            body(response_format={"type": "json_schema", "json_schema": {}}),
            "response_format.json_schema.name",
        ),
        (
            body(
                response_format={
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"type": "wish"}},
                }
            ),
            "schema",
        ),
        (body(store="yes"), "store"),
    ],
)
async def test_what_cannot_be_written_is_refused(client: Client, sent: object, param: str) -> None:
    status, error = await client.refused(sent)
    assert (status, error["param"]) == (400, param), error
