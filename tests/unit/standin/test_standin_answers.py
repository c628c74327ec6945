"""What a well-behaved stand-in answers: completions, streams, models, errors."""

from __future__ import annotations

from typing import Any

import pytest
from yarl import URL

from gateway.standin import StandIn, StandInSettings
from tests.unit.standin.standin_client import Client, body, count_words, prompt_of, running

BOTH_CAPS = "invalid_parameter_combination"


def usage(prompt: int, completion: int, cached: int = 0, reasoning: int = 0) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


async def test_a_completion_has_openais_shape(client: Client) -> None:
    answer = await client.chat(body())
    assert answer.pop("id").startswith("chatcmpl-")
    assert isinstance(answer.pop("created"), int)
    assert answer == {
        "object": "chat.completion",
        "model": "gpt-4o-mini",
        "service_tier": "default",
        "system_fingerprint": None,
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Hello! Your words arrived, and here is an answer.",
                    "refusal": None,
                    "annotations": [],
                },
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": usage(prompt_of("hi"), 12),
    }


async def test_every_answer_has_its_own_id(client: Client) -> None:
    first, second = await client.chat(body()), await client.chat(body())
    assert first["id"] != second["id"]
    assert len(first["id"]) == len("chatcmpl-") + 29


async def test_a_stream_has_openais_chunks(client: Client) -> None:
    chunks = await client.chunks(body("hi\n@stand-in write=6"))
    assert len({chunk.pop("id") for chunk in chunks}) == 1
    assert len({chunk.pop("created") for chunk in chunks}) == 1

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {
            "object": "chat.completion.chunk",
            "model": "gpt-4o-mini",
            "service_tier": "default",
            "system_fingerprint": None,
            "choices": [choice],
        }

    assert chunks == [
        chunk({"role": "assistant", "content": "", "refusal": None}),
        chunk({"content": "Hello! Your words"}),
        chunk({"content": " arrived,"}),
        chunk({}, "stop"),
    ]


async def test_usage_comes_last_when_a_stream_asks_for_it(client: Client) -> None:
    asked = body(stream_options={"include_usage": True})
    *chunks, last = await client.chunks(asked)
    assert all(chunk["usage"] is None and chunk["choices"] for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"] == usage(prompt_of("hi"), 12)


async def test_a_stream_that_does_not_ask_gets_no_usage(client: Client) -> None:
    asked = body(stream_options={"include_usage": False})
    assert all("usage" not in chunk for chunk in await client.chunks(asked))


@pytest.mark.parametrize("cap", ["max_tokens", "max_completion_tokens"])
async def test_the_cap_cuts_at_exactly_that_many_tokens(client: Client, cap: str) -> None:
    asked = body("hi\n@stand-in write=10000", **{cap: 4096})
    answer = await client.chat(asked)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 4096
    assert count_words(answer["choices"][0]["message"]["content"]) == 4096
    chunks = await client.chunks(asked)
    written = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert count_words(written) == 4096


async def test_text_as_long_as_the_cap_is_not_cut(client: Client) -> None:
    answer = await client.chat(body("hi\n@stand-in write=16", max_completion_tokens=16))
    assert answer["choices"][0]["finish_reason"] == "stop"


async def test_every_choice_is_written_and_counted(client: Client) -> None:
    asked = body("hi\n@stand-in write=5", n=3)
    answer = await client.chat(asked)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert answer["usage"]["completion_tokens"] == 15
    written = ["", "", ""]
    for chunk in await client.chunks(asked):
        [choice] = chunk["choices"]
        written[choice["index"]] += choice["delta"].get("content", "")
    assert [count_words(text) for text in written] == [5, 5, 5]


async def test_the_paid_service_tier_is_echoed(client: Client) -> None:
    assert (await client.chat(body(service_tier="flex")))["service_tier"] == "flex"
    assert (await client.chat(body(service_tier="auto")))["service_tier"] == "default"


async def test_a_model_name_needs_no_trust(client: Client) -> None:
    odd = 'm"\\\n"content":"'
    assert (await client.chat({**body(), "model": odd}))["model"] == odd
    assert {chunk["model"] for chunk in await client.chunks({**body(), "model": odd})} == {odd}


async def test_answers_carry_the_headers_of_openai(client: Client) -> None:
    seen = set()
    for sent in (body(), body(stream=True), body("@stand-in status=500")):
        async with client.post(sent) as response:
            seen.add(response.headers["x-request-id"])
            assert response.headers["openai-organization"] == "stand-in"
            assert response.headers["openai-version"] == "2020-10-01"
            assert response.headers["x-ratelimit-remaining-tokens"] == "1999999"
            assert "openai-processing-ms" in response.headers
            assert "Set-Cookie" in response.headers
    assert len(seen) == 3


async def test_models_are_listed_and_shown(client: Client) -> None:
    async with client.session.get(f"{client.url}/models") as response:
        listed = await response.json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["gpt-6-luna", "gpt-4o-mini", "gpt-4o"]
    async with client.session.get(f"{client.url}/models/gpt-4o") as response:
        assert await response.json() == listed["data"][2]
    async with client.session.get(f"{client.url}/models/gpt-9") as response:
        assert response.status == 404
        assert (await response.json())["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/audio/speech"), ("GET", "/chat/completions"), ("GET", "/files")]
)
async def test_other_paths_are_unknown_urls(client: Client, method: str, path: str) -> None:
    async with client.session.request(method, client.url + path) as response:
        assert response.status == 404
        error = (await response.json())["error"]
    assert error["code"] == "unknown_url"
    assert f"{method} /v1{path}" in error["message"]


@pytest.mark.parametrize(
    ("sent", "param", "code"),
    [
        ({"messages": []}, None, None),
        ({"model": "m"}, "messages", "missing_required_parameter"),
        ({"model": "m", "messages": []}, "messages", "empty_array"),
        ({"model": "m", "messages": "hi"}, "messages", "invalid_type"),
        ({"model": "m", "messages": ["hi"]}, "messages[0]", "invalid_type"),
        ([], None, "invalid_type"),
        (None, None, None),
        (body(max_tokens=0), "max_tokens", "integer_below_min_value"),
        (body(max_tokens="5"), "max_tokens", "invalid_type"),
        (body(max_tokens=True), "max_tokens", "invalid_type"),
        (body(n=129), "n", "integer_above_max_value"),
        (
            body(max_tokens=5, max_completion_tokens=5),
            "max_tokens",
            "invalid_parameter_combination",
        ),
        (body(stream="yes"), "stream", "invalid_type"),
        (body(stream_options={}), "stream_options", None),
        (body(stream=True, stream_options=[]), "stream_options", "invalid_type"),
        (body(quota_tag="quiz"), "quota_tag", "unknown_parameter"),
        (body("@stand-in wirte=3"), "messages", "stand_in_directive"),
        (body("@stand-in error_after=3"), "messages", "stand_in_directive"),
    ],
)
async def test_a_bad_request_is_refused(
    client: Client, sent: object, param: str | None, code: str | None
) -> None:
    status, error = await client.refused(sent)
    assert status == 400
    assert error["type"] == "invalid_request_error"
    assert (error["param"], error["code"]) == (param, code)
    assert error["message"]


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"content": "hi"}, "messages[0].role"),
        ({"role": "boss", "content": "hi"}, "messages[0].role"),
        ({"role": "user"}, "messages[0].content"),
        ({"role": "user", "content": 5}, "messages[0].content"),
    ],
)
async def test_a_bad_message_is_named(client: Client, message: object, param: str) -> None:
    status, error = await client.refused({"model": "m", "messages": [message]})
    assert (status, error["param"]) == (400, param)


async def test_a_body_that_is_no_json_is_refused(client: Client) -> None:
    for broken in (b"{", b"", b"\xff\xfe", b"[" * 100_000):
        async with client.session.post(f"{client.url}/chat/completions", data=broken) as response:
            assert response.status == 400
            assert "JSON" in (await response.json())["error"]["message"]


async def test_a_wrong_key_is_refused_in_words_that_show_part_of_it() -> None:
    async with running(StandInSettings(count_words, require_key="sk-right-0123456789")) as client:
        answer = await client.chat(body(), Authorization="Bearer sk-right-0123456789")
        assert answer["usage"]["completion_tokens"] == 12
        status, error = await client.refused(body(), Authorization="Bearer sk-wrong-0123456789")
        assert (status, error["code"]) == (401, "invalid_api_key")
        assert "sk-wrong*******6789" in error["message"]
        status, error = await client.refused(body())
        assert status == 401
        assert "didn't provide an API key" in error["message"]
        async with client.session.get(f"{client.url}/models") as response:
            assert response.status == 401


async def test_the_size_of_a_streams_chunks_is_a_setting() -> None:
    async with running(StandInSettings(count_words, chunk_tokens=100)) as client:
        chunks = await client.chunks(body("hi\n@stand-in write=250"))
    deltas = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert [count_words(delta) for delta in deltas] == [0, 100, 100, 50, 0]


def test_a_chunk_of_no_tokens_is_no_setting() -> None:
    with pytest.raises(ValueError, match="chunk_tokens is 0"):
        StandInSettings(count_words, chunk_tokens=0)


async def test_a_taken_port_is_an_error(client: Client) -> None:
    taken = StandIn(StandInSettings(count_words, port=URL(client.url).port or 0))
    with pytest.raises(OSError, match="address already in use"):
        await taken.start()


async def test_stopping_twice_does_nothing_more() -> None:
    stand_in = StandIn(StandInSettings(count_words))
    await stand_in.start()
    await stand_in.stop()
    await stand_in.stop()
