"""The stand-in misbehaves when it is told to, and counts what really went out."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from tests.unit.standin.standin_client import Client, body, count_words, prompt_of, until

END_OF_CHUNKS = b"\r\n0\r\n\r\n"


def told(order: str, **parameters: Any) -> dict[str, Any]:
    return body(f"hi\n@stand-in {order}", **parameters)


def asking_usage(order: str) -> dict[str, Any]:
    return told(order, stream_options={"include_usage": True})


async def usage_of(client: Client, order: str) -> list[Any]:
    """The usage of a whole answer and of a stream that asks for it."""
    answer = await client.chat(told(order))
    *_, last = await client.chunks(asking_usage(order))
    return [answer.get("usage"), last.get("usage")]


async def test_usage_can_be_dictated(client: Client) -> None:
    for usage in await usage_of(client, "usage=500/70/100/60"):
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (500, 70)
        assert usage["total_tokens"] == 570
        assert usage["prompt_tokens_details"]["cached_tokens"] == 100
        assert usage["completion_tokens_details"]["reasoning_tokens"] == 60


async def test_usage_can_be_zero(client: Client) -> None:
    for usage in await usage_of(client, "usage=zero"):
        assert usage["prompt_tokens"] == usage["total_tokens"] == 0


async def test_usage_can_be_told_as_text(client: Client) -> None:
    for usage in await usage_of(client, "usage=text"):
        assert usage["completion_tokens"] == "12"


async def test_usage_can_be_left_out(client: Client) -> None:
    assert await usage_of(client, "usage=none") == [None, None]
    assert all("usage" not in chunk for chunk in await client.chunks(asking_usage("usage=none")))


async def test_the_cap_can_be_ignored(client: Client) -> None:
    answer = await client.chat(told("write=40 ignore_cap", max_completion_tokens=16))
    assert answer["usage"]["completion_tokens"] == 40
    assert answer["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("order", "status", "kind", "code"),
    [
        ("status=500", 500, "server_error", None),
        ("status=503", 503, "server_error", None),
        ("status=401", 401, "invalid_request_error", None),
        ("status=401 code=invalid_api_key", 401, "invalid_request_error", "invalid_api_key"),
        ("status=429", 429, "requests", "rate_limit_exceeded"),
        ("status=429 code=insufficient_quota", 429, "insufficient_quota", "insufficient_quota"),
    ],
)
async def test_an_error_can_be_demanded(
    client: Client, order: str, status: int, kind: str, code: str | None
) -> None:
    for stream in (False, True):
        found, error = await client.refused(told(order, stream=stream))
        assert (found, error["type"], error["code"]) == (status, kind, code)


async def test_an_error_can_say_when_to_come_back(client: Client) -> None:
    async with client.post(told("status=429 retry_after=7")) as response:
        assert response.headers["Retry-After"] == "7"
    async with client.post(told("status=429")) as response:
        assert "Retry-After" not in response.headers


async def test_only_the_last_message_gives_orders(client: Client) -> None:
    asked = told("status=500")
    asked["messages"].append({"role": "user", "content": "again"})
    assert (await client.chat(asked))["usage"]["completion_tokens"] == 12


async def test_a_stream_can_be_cut_after_some_chunks(client: Client) -> None:
    order = "hi\n@stand-in write=100 cut_after=3"
    received = await client.wire(body(order, stream=True), "cut")
    assert received.count(b"data: ") == 1 + 3
    assert not received.endswith(END_OF_CHUNKS)
    assert await client.ended("cut") == {
        "user": "anonymous",
        "prompt_tokens": prompt_of(order),
        "completion_tokens": 12,
        "status": 200,
        "finished": False,
        "reported": False,
        "seen": 1,
    }


async def test_a_stream_can_be_cut_after_its_last_chunk(client: Client) -> None:
    with pytest.raises(aiohttp.ClientPayloadError):
        await client.events(told("write=8 cut_after=2"), x_client_request_id="cut")
    call = await client.ended("cut")
    assert (call["completion_tokens"], call["finished"]) == (8, False)


async def test_a_whole_answer_can_be_cut_in_half(client: Client) -> None:
    order = "hi\n@stand-in write=100 cut_after=0"
    received = await client.wire(body(order), "cut")
    head, _, sent = received.partition(b"\r\n\r\n")
    promised = int(head.partition(b"Content-Length: ")[2].split()[0])
    assert len(sent) < promised
    assert count_words(sent.partition(b'"content":"')[2].decode()) == 50
    call = await client.ended("cut")
    assert (call["prompt_tokens"], call["completion_tokens"]) == (prompt_of(order), 50)
    assert (call["finished"], call["reported"]) == (False, False)


async def test_a_stream_can_break_off_with_an_error_event(client: Client) -> None:
    events = await client.events(told("write=100 error_after=2"), x_client_request_id="broken")
    assert len(events) == 1 + 2 + 1
    assert events[-1].startswith('{"error":{"message":"The server had an error')
    call = await client.ended("broken")
    assert (call["completion_tokens"], call["finished"]) == (8, False)


async def test_an_endless_stream_ends_when_the_client_leaves(client: Client) -> None:
    sent = told("never_ends", stream=True, max_completion_tokens=16)
    async with client.post(sent, x_client_request_id="endless") as response:
        async for line in response.content:
            if b"answer." in line:
                break
        assert await client.call("endless") is None
        response.close()
    call = await client.ended("endless")
    assert (call["status"], call["finished"], call["reported"]) == (200, False, False)
    assert call["completion_tokens"] >= 12


async def test_an_answer_that_never_comes_ends_when_the_client_leaves(client: Client) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await client.chat(told("never_ends"), x_client_request_id="endless")
    call = await client.ended("endless")
    assert (call["status"], call["prompt_tokens"], call["completion_tokens"]) == (499, 0, 0)


async def test_a_held_call_waits_for_its_release(client: Client) -> None:
    held = asyncio.gather(*(client.chat(told("hold=door")) for _ in range(2)))
    other = asyncio.ensure_future(client.chat(told("hold=window")))

    async def all_wait() -> bool:
        return bool(await client.ask("waiting") == {"door": 2, "window": 1})

    await until(all_wait)
    assert await client.ask("release/door", "POST") == {"released": 2}
    assert [answer["usage"]["completion_tokens"] for answer in await held] == [12, 12]
    assert not other.done()
    assert await client.ask("waiting") == {"window": 1}
    await client.ask("release/window", "POST")
    assert (await other)["usage"]["completion_tokens"] == 12


async def test_a_stream_can_be_held_between_its_chunks(client: Client) -> None:
    sent = told("write=100 hold=door hold_after=2", stream=True)
    async with client.post(sent) as response:
        await client.waits_at("door")
        received = await response.content.readuntil(b' arrived, and here"}')
        await client.ask("release/door", "POST")
        received += await response.content.read()
    assert received.count(b'"content":') == 1 + 25
    assert received.endswith(b"data: [DONE]\n\n")


async def test_a_client_that_leaves_waits_nowhere(client: Client) -> None:
    leaving = asyncio.ensure_future(client.chat(told("hold=door"), x_client_request_id="gone"))
    await client.waits_at("door")
    leaving.cancel()
    assert (await client.ended("gone"))["status"] == 499
    assert await client.ask("waiting") == {}


async def test_nobody_is_released_where_nobody_waits(client: Client) -> None:
    assert await client.ask("release/door", "POST") == {"released": 0}


async def test_delays_are_kept(client: Client) -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with client.post(told("write=12 delay_ms=40 chunk_ms=30", stream=True)) as response:
        first = loop.time()
        await response.read()
    assert first - begun >= 0.040
    assert loop.time() - first >= 0.060
