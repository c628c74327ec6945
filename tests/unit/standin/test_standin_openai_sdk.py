"""The official client, unchanged, takes the stand-in for OpenAI."""

from __future__ import annotations

from collections.abc import AsyncIterator

import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam

from tests.unit.standin.standin_client import Client, count_words, prompt_of


@pytest.fixture
async def sdk(client: Client) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=client.url, api_key="sk-any", max_retries=0) as sdk:
        yield sdk


def user(text: str) -> list[ChatCompletionUserMessageParam]:
    return [{"role": "user", "content": text}]


async def test_a_completion(sdk: openai.AsyncOpenAI) -> None:
    answer = await sdk.chat.completions.create(model="gpt-4o-mini", messages=user("hi"))
    assert answer.choices[0].message.content == "Hello! Your words arrived, and here is an answer."
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (prompt_of("hi"), 12)


@pytest.mark.parametrize("include_usage", [True, False])
async def test_a_stream(sdk: openai.AsyncOpenAI, include_usage: bool) -> None:
    asked = "hi\n@stand-in write=50"
    stream = await sdk.chat.completions.create(
        model="gpt-4o-mini",
        messages=user(asked),
        max_completion_tokens=30,
        stream=True,
        stream_options={"include_usage": include_usage},
    )
    chunks = [chunk async for chunk in stream]
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert count_words("".join(choice.delta.content or "" for choice in choices)) == 30
    assert choices[-1].finish_reason == "length"
    usages = [chunk.usage for chunk in chunks if chunk.usage is not None]
    assert [usage.total_tokens for usage in usages] == [prompt_of(asked) + 30] * include_usage


async def test_models(sdk: openai.AsyncOpenAI) -> None:
    listed = [model.id async for model in sdk.models.list()]
    assert listed == ["gpt-6-luna", "gpt-4o-mini", "gpt-4o"]


async def test_a_demanded_429_is_raised_as_a_rate_limit(sdk: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as caught:
        await sdk.chat.completions.create(
            model="gpt-4o-mini", messages=user("@stand-in status=429 code=insufficient_quota")
        )
    assert caught.value.code == "insufficient_quota"


async def test_an_error_event_is_raised_in_mid_stream(sdk: openai.AsyncOpenAI) -> None:
    stream = await sdk.chat.completions.create(
        model="gpt-4o-mini", messages=user("@stand-in error_after=1"), stream=True
    )
    with pytest.raises(openai.APIError, match="The server had an error"):
        async for _ in stream:
            pass
