"""What /stand-in/paths and the tally tell of all the APIs, and of paths that nobody serves."""

from __future__ import annotations

import json

from gateway.standin.received import OTHER_PATHS, PATHS_MAX
from tests.unit.standin.standin_client import Client, body, prompt_of


async def test_requests_and_bytes_are_counted_by_path(client: Client) -> None:
    sent = body()
    for _ in range(2):
        await client.chat(sent)
    async with client.session.post(f"{client.url}/files?purpose=x", data=b"12345") as response:
        assert response.status == 404
    async with client.session.get(f"{client.url}/models"):
        pass
    await client.refusal("responses", {})
    assert await client.ask("paths") == {
        "POST /v1/chat/completions": {"requests": 2, "bytes": 2 * len(json.dumps(sent))},
        "POST /v1/files": {"requests": 1, "bytes": 5},
        "GET /v1/models": {"requests": 1, "bytes": 0},
        "POST /v1/responses": {"requests": 1, "bytes": 2},
    }
    await client.ask("reset", "POST")
    assert await client.ask("paths") == {}


async def test_a_request_counts_before_its_body_has_come(client: Client) -> None:
    head = "POST /v1/threads%2f1 HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf"
    await client.hung_up(head.encode())
    assert (await client.ask("paths"))["POST /v1/threads%2f1"] == {"requests": 1, "bytes": 0}


async def test_more_paths_than_can_be_kept_are_counted_together(client: Client) -> None:
    for number in range(PATHS_MAX + 2):
        async with client.session.get(f"{client.url}/{number}"):
            pass
    paths = await client.ask("paths")
    assert len(paths) == PATHS_MAX + 1
    assert paths[OTHER_PATHS]["requests"] == 2


async def test_the_tally_covers_every_api(client: Client) -> None:
    sent = {
        "chat/completions": body(),
        "responses": {"model": "m", "input": "hi"},
        "completions": {"model": "m", "prompt": "hi"},
        "embeddings": {"model": "m", "input": "hi"},
        "moderations": {"input": "hi"},
    }
    for path, asked in sent.items():
        await client.answer(path, asked, x_quota_user="ann", x_client_request_id=path)
    served = await client.ask("served")
    assert served["users"]["ann"] == {
        "requests": 5,
        "prompt_tokens": prompt_of("hi") * 2 + 1 + 1,
        "completion_tokens": 3 * 12,
    }
    assert served["calls"]["responses"]["completion_tokens"] == 12
    assert served["calls"]["embeddings"]["prompt_tokens"] == 1
    assert [call["reported"] for call in served["calls"].values()] == [True] * 4 + [False]


async def test_a_stream_of_responses_counts_what_it_reported(client: Client) -> None:
    asked = {"model": "m", "input": "hi\n@stand-in usage=900/80"}
    await client.stream("responses", asked, x_client_request_id="s")
    call = await client.ended("s")
    assert (call["prompt_tokens"], call["completion_tokens"]) == (900, 80)
    assert (call["reported"], call["finished"]) == (True, True)
