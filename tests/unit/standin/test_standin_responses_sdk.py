"""The official client, unchanged, takes the stand-in's responses for OpenAI's."""

from __future__ import annotations

from collections.abc import AsyncIterator

import openai
import pytest
from openai.types.responses import FunctionToolParam
from pydantic import BaseModel

from tests.unit.standin.standin_client import Client, count_words

GREETING = "Hello! Your words arrived, and here is an answer."
MODEL = "gpt-6-luna"
WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


class Step(BaseModel):
    explanation: str
    number: int


class Solution(BaseModel):
    steps: list[Step]
    final: Step
    kind: str | None


@pytest.fixture
async def sdk(client: Client) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=client.url, api_key="sk-any", max_retries=0) as sdk:
        yield sdk


async def test_a_response(sdk: openai.AsyncOpenAI) -> None:
    response = await sdk.responses.create(model=MODEL, input="hi", instructions="be kind")
    assert response.output_text == GREETING
    assert response.usage is not None
    assert response.usage.output_tokens == 12


async def test_a_raw_stream(sdk: openai.AsyncOpenAI) -> None:
    stream = await sdk.responses.create(model=MODEL, input="hi", stream=True)
    events = [event async for event in stream]
    written = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(written) == GREETING
    assert events[-1].type == "response.completed"


async def test_a_stream_with_its_final_response(sdk: openai.AsyncOpenAI) -> None:
    asked = "hi\n@stand-in think=9 write=30"
    async with sdk.responses.stream(
        model=MODEL, input=asked, reasoning={"summary": "auto"}
    ) as stream:
        async for event in stream:
            if event.type == "response.output_text.done":
                assert count_words(event.text) == 30
        response = await stream.get_final_response()
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert response.usage is not None
    assert response.usage.output_tokens_details.reasoning_tokens == 9


async def test_structured_output_is_parsed(sdk: openai.AsyncOpenAI) -> None:
    parsed = await sdk.responses.parse(model=MODEL, input="solve it", text_format=Solution)
    step = Step(explanation=GREETING, number=1)
    assert parsed.output_parsed == Solution(steps=[step], final=step, kind=GREETING)
    async with sdk.responses.stream(model=MODEL, input="again", text_format=Solution) as stream:
        response = await stream.get_final_response()
    assert response.output_parsed == parsed.output_parsed


async def test_a_function_is_called_and_answered(sdk: openai.AsyncOpenAI) -> None:
    asked = "How is it?\n@stand-in calls=1 write=1"
    response = await sdk.responses.create(model=MODEL, input=asked, tools=[WEATHER])
    [call] = response.output
    assert call.type == "function_call"
    assert (call.name, call.arguments) == ("get_weather", '{"city":"Hello"}')
    answered = await sdk.responses.create(
        model=MODEL,
        input=[
            {"role": "user", "content": asked},
            {
                "type": "function_call",
                "call_id": call.call_id,
                "name": call.name,
                "arguments": call.arguments,
            },
            {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"},
        ],
        tools=[WEATHER],
    )
    assert answered.output_text == GREETING


async def test_functions_are_called_in_a_stream(sdk: openai.AsyncOpenAI) -> None:
    asked = "@stand-in calls=2 write=7"
    async with sdk.responses.stream(model=MODEL, input=asked, tools=[WEATHER]) as stream:
        done = [
            event.arguments
            async for event in stream
            if event.type == "response.function_call_arguments.done"
        ]
        response = await stream.get_final_response()
    assert done == ['{"city":"Hello! Your words arrived, and"}'] * 2
    assert [item.type for item in response.output] == ["function_call"] * 2


async def test_an_incomplete_and_a_failed_response_are_told_apart(sdk: openai.AsyncOpenAI) -> None:
    for order, kind in (("write=99", "incomplete"), ("fail_after=2", "failed")):
        stream = await sdk.responses.create(
            model=MODEL, input=f"@stand-in {order}", max_output_tokens=16, stream=True
        )
        events = [event async for event in stream]
        assert events[-1].type == f"response.{kind}"


async def test_an_error_event_is_raised(sdk: openai.AsyncOpenAI) -> None:
    stream = await sdk.responses.create(model=MODEL, input="@stand-in error_after=1", stream=True)
    with pytest.raises(openai.APIError, match="The server had an error"):
        async for _ in stream:
            pass
