"""The stand-in as Azure OpenAI, and as a server that only resembles OpenAI."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from gateway.standin import StandInSettings
from tests.unit.standin.standin_client import Client, body, count_words, data_of, prompt_of, running

KEY = "sk-azure-0123456789"
DEPLOYED = "/openai/deployments/my-mini"
VERSION = "api-version=2024-10-21"
CHAT = f"{DEPLOYED}/chat/completions?{VERSION}"
FILTERS = {"hate", "self_harm", "sexual", "violence"}


@pytest.fixture
async def locked() -> AsyncIterator[Client]:
    async with running(StandInSettings(count_words, require_key=KEY)) as client:
        yield client


@pytest.fixture
async def compatible() -> AsyncIterator[Client]:
    async with running(StandInSettings(count_words, compatible=True)) as client:
        yield client


async def test_azure_is_shown_its_key_in_a_header_of_its_own(locked: Client) -> None:
    assert await locked.answer(CHAT, body(), api_key=KEY)
    assert await locked.answer("/openai/v1/responses", {"model": "m", "input": "hi"}, api_key=KEY)
    bearer = {"Authorization": f"Bearer {KEY}"}
    assert await locked.answer("/openai/v1/chat/completions", body(), **bearer)
    for headers in ({}, {"api_key": "sk-wrong"}, {"Authorization": KEY}):
        status, error = await locked.refusal(CHAT, body(), **headers)
        assert (status, error["code"]) == (401, "401")
        assert "sk-" not in error["message"]


async def test_openais_own_paths_look_at_no_api_key_header(locked: Client) -> None:
    assert (await locked.refused(body(), api_key=KEY))[0] == 401


async def test_a_deployment_stands_for_its_model(client: Client) -> None:
    sent = body()
    del sent["model"]
    answer = await client.answer(CHAT, sent)
    assert answer["model"] == "my-mini"
    [choice] = answer["choices"]
    assert set(choice["content_filter_results"]) == FILTERS
    assert answer["prompt_filter_results"][0]["prompt_index"] == 0
    assert "content_filter_results" not in (await client.chat(body()))["choices"][0]


async def test_azures_streams_begin_with_a_chunk_without_choices(client: Client) -> None:
    asked = body(stream_options={"include_usage": True})
    *events, end = data_of(await client.stream(CHAT, asked))
    assert end == "[DONE]"
    first, second, *_, last = [json.loads(event) for event in events]
    verdict = first.pop("prompt_filter_results")
    assert verdict[0]["content_filter_results"]["hate"] == {"filtered": False, "severity": "safe"}
    assert first == {"choices": [], "created": 0, "id": "", "model": "", "object": ""}
    assert second["choices"][0]["delta"]["role"] == "assistant"
    assert (last["choices"], last["usage"]["prompt_tokens"]) == ([], prompt_of("hi"))


async def test_an_older_azure_knows_no_stream_options(client: Client) -> None:
    older = f"{DEPLOYED}/chat/completions?api-version=2024-06-01"
    asked = body(stream=True, stream_options={"include_usage": True})
    status, error = await client.refusal(older, asked)
    assert (status, error["param"], error["code"]) == (400, "stream_options", "unknown_parameter")
    assert "[DONE]" in await client.stream(older, body())


async def test_a_deployment_needs_a_version(client: Client) -> None:
    status, error = await client.refusal(f"{DEPLOYED}/chat/completions", body())
    assert (status, error["code"]) == (404, "404")


async def test_azure_serves_all_but_moderations(client: Client) -> None:
    asked = {"completions": {"prompt": "hi"}, "embeddings": {"input": "hi"}}
    for name, sent in asked.items():
        answer = await client.answer(f"{DEPLOYED}/{name}?{VERSION}", sent)
        assert answer["model"] == "my-mini"
        assert await client.answer(f"/openai/v1/{name}", {**sent, "model": "m"})
    async with client.session.get(client.url.replace("/v1", "/openai/v1/models")) as response:
        assert response.status == 200
    for path in ("/openai/v1/moderations", f"{DEPLOYED}/responses?{VERSION}", "/openai/files"):
        assert (await client.refusal(path, {}))[0] == 404


async def test_the_client_for_azure_takes_it_for_azure(locked: Client) -> None:
    async with openai.AsyncAzureOpenAI(
        azure_endpoint=locked.url.removesuffix("/v1"),
        api_key=KEY,
        api_version="2024-10-21",
        max_retries=0,
    ) as sdk:
        stream = await sdk.chat.completions.create(
            model="my-mini", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        chunks = [chunk async for chunk in stream]
        assert chunks[0].choices == []
        written = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        assert count_words("".join(written)) == 12
        found = await sdk.embeddings.create(model="my-embedder", input="hi")
        assert found.model == "my-embedder"
    assert "POST /openai/deployments/my-mini/chat/completions" in await locked.ask("paths")


async def written_by(client: Client, **caps: int) -> dict[str, Any]:
    answer = await client.chat(body("hi\n@stand-in write=40", **caps))
    return {"tokens": answer["usage"]["completion_tokens"], **answer["choices"][0]}


async def test_a_compatible_server_knows_only_the_older_limit(compatible: Client) -> None:
    for caps, tokens, reason in (
        ({"max_tokens": 7}, 7, "length"),
        ({"max_completion_tokens": 7}, 40, "stop"),
        ({"max_tokens": 9, "max_completion_tokens": 7}, 9, "length"),
    ):
        found = await written_by(compatible, **caps)
        assert (found["tokens"], found["finish_reason"]) == (tokens, reason)


async def test_a_compatible_server_ignores_what_it_does_not_know(compatible: Client) -> None:
    sent = body(metadata={"a": "b"}, safety_identifier="x", num_ctx=5)
    assert (await compatible.chat(sent))["usage"]["completion_tokens"] == 12


async def test_a_compatible_server_knows_no_stream_options(compatible: Client) -> None:
    for path, sent in (
        ("chat/completions", body()),
        ("completions", {"model": "m", "prompt": "hi"}),
    ):
        asked = {**sent, "stream": True, "stream_options": {"include_usage": True}}
        status, error = await compatible.refusal(path, asked)
        assert (status, error["param"]) == (400, "stream_options")
        assert '"usage"' not in await compatible.stream(path, sent)


async def test_a_compatible_servers_streams_hold_comments(compatible: Client) -> None:
    sent = body("hi\n@stand-in write=8")
    told = (await compatible.stream("chat/completions", sent)).split("\n\n")
    assert told[:3:2] == [": PROCESSING"] * 2
    assert told.count(": PROCESSING") == 3
    async with openai.AsyncOpenAI(base_url=compatible.url, api_key="any") as sdk:
        stream = await sdk.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        written = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert count_words("".join(written)) == 12


async def test_a_compatible_server_shows_its_thoughts(compatible: Client) -> None:
    asked = body("hi\n@stand-in think=7 write=3")
    answer = await compatible.chat(asked)
    message = answer["choices"][0]["message"]
    assert count_words(message["reasoning_content"]) == 7
    assert count_words(message["content"]) == 3
    assert answer["usage"]["completion_tokens"] == 10
    stream = await compatible.stream("chat/completions", asked, x_client_request_id="s")
    assert stream.count('"reasoning_content":"Hello! Your words arrived, and"') == 1
    assert (await compatible.ended("s"))["completion_tokens"] == 10
