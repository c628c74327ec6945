"""Completions, embeddings and moderations: shapes, counts and refusals."""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai.types import (
    Completion,
    CreateEmbeddingResponse,
    ModerationCreateResponse,
    ModerationMultiModalInputParam,
)

from tests.unit.standin.standin_client import Client, count_words, data_of
from tests.unit.standin.strict_shapes import strictly

GREETING = "Hello! Your words arrived, and here is an answer."


@pytest.fixture
async def sdk(client: Client) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=client.url, api_key="sk-any", max_retries=0) as sdk:
        yield sdk


def continuing(prompt: Any = "hi", **parameters: Any) -> dict[str, Any]:
    return {"model": "some-model", "prompt": prompt, **parameters}


def embedding(given: Any = "hi", **parameters: Any) -> dict[str, Any]:
    return {"model": "text-embedding-3-small", "input": given, **parameters}


async def test_a_completion_has_openais_shape(client: Client) -> None:
    answer = await client.answer("completions", continuing())
    completion = strictly(Completion, answer)
    assert completion.id.startswith("cmpl-")
    assert answer["choices"] == [
        {"text": GREETING, "index": 0, "logprobs": None, "finish_reason": "stop"}
    ]
    assert answer["usage"] == {"prompt_tokens": 1, "completion_tokens": 12, "total_tokens": 13}


async def test_a_completion_ends_at_16_tokens_unless_told_otherwise(client: Client) -> None:
    for cap, tokens in ((None, 16), (40, 40), (0, 0)):
        asked = continuing("@stand-in write=100", max_tokens=cap)
        answer = await client.answer("completions", asked)
        assert answer["choices"][0]["finish_reason"] == "length"
        assert answer["usage"]["completion_tokens"] == tokens
        assert count_words(answer["choices"][0]["text"]) == tokens


@pytest.mark.parametrize(
    ("prompt", "prompts", "tokens"),
    [("one two", 1, 2), (["one two", "three"], 2, 3), ([7, 8, 9], 1, 3), ([[7, 8], [9]], 2, 3)],
)
async def test_a_prompt_has_four_forms(
    client: Client, prompt: Any, prompts: int, tokens: int
) -> None:
    answer = await client.answer("completions", continuing(prompt, n=2))
    assert [choice["index"] for choice in answer["choices"]] == list(range(2 * prompts))
    assert answer["usage"]["prompt_tokens"] == tokens
    assert answer["usage"]["completion_tokens"] == 2 * prompts * 12


async def test_all_of_best_of_are_counted(client: Client) -> None:
    answer = await client.answer("completions", continuing(n=2, best_of=5))
    assert len(answer["choices"]) == 2
    assert answer["usage"]["completion_tokens"] == 5 * 12


async def test_the_prompt_can_be_repeated(client: Client) -> None:
    asked = continuing(["one", "two"], echo=True)
    answer = await client.answer("completions", asked)
    texts = [choice["text"] for choice in answer["choices"]]
    assert texts == ["one" + GREETING, "two" + GREETING]
    assert answer["usage"]["completion_tokens"] == 24
    written = ["", ""]
    for data in data_of(await client.stream("completions", asked))[:-1]:
        for choice in json.loads(data)["choices"]:
            written[choice["index"]] += choice["text"]
    assert written == texts


async def test_completions_stream(client: Client) -> None:
    asked = continuing("hi\n@stand-in write=6", n=2, stream_options={"include_usage": True})
    *events, end = data_of(await client.stream("completions", asked))
    assert end == "[DONE]"
    *chunks, last = [json.loads(event) for event in events]
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 12
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [choice["text"] for choice in choices if choice["index"] == 1] == [
        *("Hello! Your words", " arrived,", ""),
    ]
    assert [choice["finish_reason"] for choice in choices] == [None] * 4 + ["stop"] * 2


async def test_the_client_reads_completions(sdk: openai.AsyncOpenAI) -> None:
    whole = await sdk.completions.create(model="m", prompt="hi")
    assert whole.choices[0].text == GREETING
    stream = await sdk.completions.create(model="m", prompt="hi", stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == GREETING


@pytest.mark.parametrize(
    ("sent", "param", "code"),
    [
        ({"model": "m"}, "prompt", "missing_required_parameter"),
        (continuing([]), "prompt", "empty_array"),
        (continuing([1, "a"]), "prompt[0]", "invalid_type"),
        (continuing(["a"] * 2_049), "prompt", "array_above_max_length"),
        (continuing(n=3, best_of=2), None, None),
        (continuing(best_of=2, stream=True), "best_of", None),
        (continuing(max_completion_tokens=5), "max_completion_tokens", "unknown_parameter"),
        (continuing("@stand-in think=3"), "prompt", "stand_in_directive"),
    ],
)
async def test_a_bad_prompt_is_refused(
    client: Client, sent: object, param: str | None, code: str | None
) -> None:
    status, error = await client.refusal("completions", sent)
    assert (status, error["param"], error["code"]) == (400, param, code), error


async def test_embeddings_have_openais_shape(client: Client) -> None:
    answer = await client.answer("embeddings", embedding(["one two", "three"]))
    strictly(CreateEmbeddingResponse, answer)
    assert [each["index"] for each in answer["data"]] == [0, 1]
    assert {len(each["embedding"]) for each in answer["data"]} == {1_536}
    assert answer["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    assert answer["model"] == "text-embedding-3-small"


async def vectors(client: Client, given: Any, **parameters: Any) -> list[Any]:
    answer = await client.answer("embeddings", embedding(given, **parameters))
    return [each["embedding"] for each in answer["data"]]


async def test_equal_inputs_have_equal_vectors_of_length_1(client: Client) -> None:
    first, again, other = await vectors(client, ["one", "one", "two"])
    assert first == again != other
    assert [first] == await vectors(client, "one")
    assert math.isclose(math.hypot(*first), 1, rel_tol=1e-5)
    [tokens] = await vectors(client, [5, 6])
    assert tokens != first


async def test_a_vector_can_be_shorter_and_in_base64(client: Client) -> None:
    [numbers] = await vectors(client, "one", dimensions=8)
    [written] = await vectors(client, "one", dimensions=8, encoding_format="base64")
    assert list(struct.unpack("<8f", base64.b64decode(written))) == numbers
    assert math.isclose(math.hypot(*numbers), 1, rel_tol=1e-5)


async def test_the_client_reads_embeddings(sdk: openai.AsyncOpenAI) -> None:
    # Unless told otherwise the client asks for base64 and decodes it.
    decoded = await sdk.embeddings.create(model="text-embedding-3-large", input="hi")
    plain = await sdk.embeddings.create(
        model="text-embedding-3-large", input="hi", encoding_format="float"
    )
    assert len(decoded.data[0].embedding) == 3_072
    assert decoded.data[0].embedding == pytest.approx(plain.data[0].embedding)


@pytest.mark.parametrize(
    ("sent", "param", "code"),
    [
        ({"model": "m"}, "input", "missing_required_parameter"),
        (embedding(""), None, None),
        (embedding([""]), None, None),
        (embedding([]), "input", "empty_array"),
        (embedding(dimensions=1_537), "dimensions", "integer_above_max_value"),
        ({**embedding(dimensions=5), "model": "text-embedding-ada-002"}, "dimensions", None),
        (embedding(encoding_format="hex"), "encoding_format", "invalid_value"),
        (embedding(stream=True), "stream", "unknown_parameter"),
        (embedding("@stand-in write=3"), "input", "stand_in_directive"),
    ],
)
async def test_a_bad_embedding_is_refused(
    client: Client, sent: object, param: str | None, code: str | None
) -> None:
    status, error = await client.refusal("embeddings", sent)
    assert (status, error["param"], error["code"]) == (400, param, code), error


async def test_faults_and_lies_work_for_embeddings_too(client: Client) -> None:
    status, error = await client.refusal("embeddings", embedding("@stand-in status=429"))
    assert (status, error["code"]) == (429, "rate_limit_exceeded")
    answer = await client.answer("embeddings", embedding("hi\n@stand-in usage=70/5"))
    assert answer["usage"] == {"prompt_tokens": 70, "total_tokens": 75}
    assert "usage" not in await client.answer("embeddings", embedding("@stand-in usage=none"))
    asked = embedding("hi\n@stand-in cut_after=0")
    received = await client.wire(asked, "cut", "/v1/embeddings")
    assert b'"embedding"' in received
    assert not received.endswith(b"}")


async def test_a_moderation_has_openais_shape(client: Client) -> None:
    answer = await client.answer("moderations", {"input": "I like you"})
    found = strictly(ModerationCreateResponse, answer)
    assert (found.model, found.id[:5]) == ("omni-moderation-latest", "modr-")
    [result] = found.results
    assert not result.flagged
    assert not any(answer["results"][0]["categories"].values())
    assert result.category_applied_input_types.violence == ["text"]
    assert "usage" not in answer


async def test_each_text_has_its_own_result(client: Client) -> None:
    texts = ["@stand-in flag=violence/graphic", "fine"]
    answer = await client.answer("moderations", {"input": texts})
    bad, good = strictly(ModerationCreateResponse, answer).results
    assert (bad.flagged, good.flagged) == (True, False)
    assert bad.categories.violence_graphic
    assert bad.category_scores.violence_graphic > 0.9 > good.category_scores.violence_graphic
    assert not bad.categories.violence


async def test_pictures_and_text_have_one_result(sdk: openai.AsyncOpenAI) -> None:
    parts: list[ModerationMultiModalInputParam] = [
        {"type": "text", "text": "look\n@stand-in flag=sexual"},
        {"type": "image_url", "image_url": {"url": "https://example.test/a.png"}},
    ]
    found = await sdk.moderations.create(model="omni-moderation-latest", input=parts)
    [result] = found.results
    assert result.categories.sexual
    assert result.category_applied_input_types.sexual == ["text", "image"]
    assert result.category_applied_input_types.hate == ["text"]


@pytest.mark.parametrize(
    ("given", "param"),
    [
        (None, "input"),
        ([], "input"),
        (5, "input"),
        ([1], "input[0]"),
        ([{"type": "sound"}], "input[0].type"),
        ([{"type": "image_url"}], "input[0].image_url.url"),
        ("@stand-in flag=rudeness", "input"),
        ("@stand-in usage=1/1", "input"),
    ],
)
async def test_a_bad_moderation_is_refused(client: Client, given: object, param: str) -> None:
    status, error = await client.refusal("moderations", {"input": given})
    assert (status, error["param"]) == (400, param)
