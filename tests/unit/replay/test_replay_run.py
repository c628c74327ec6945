"""Sending rows to a server on loopback that answers well, badly, late or never."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from gateway.core.usage import Usage
from gateway.replay.client import Failed, GatewayClient, Reply
from gateway.replay.draw import Draw
from gateway.replay.pace import Pace
from gateway.replay.prompt import PromptWriter
from gateway.replay.run import Part, Replay, ReplayUser
from gateway.replay.trace import Row

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
USAGE = {"prompt_tokens": 30, "completion_tokens": 5, "total_tokens": 35}
WHOLE = {"choices": [{"message": {"content": "Hello"}}], "usage": USAGE}
USERS = [ReplayUser("ann", "free", "key-ann"), ReplayUser("bob", "lite", "key-bob")]


@asynccontextmanager
async def server(handle: Handle) -> AsyncIterator[str]:
    runner = web.ServerRunner(web.Server(handle, access_log=None))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def asked_once(handle: Handle) -> Reply:
    async with server(handle) as url, GatewayClient(url, 1) as client:
        return await client.chat("key", b"{}")


def stream(*events: str) -> Handle:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in events:
            await response.write(f"data: {event}\n\n".encode())
        return response

    return handle


def answering(status: int, body: Any, **headers: str) -> Handle:
    async def handle(_: web.BaseRequest) -> web.StreamResponse:
        return web.json_response(body, status=status, headers=headers)

    return handle


def replay_of(client: GatewayClient, patience_s: float) -> Replay:
    loop = asyncio.get_running_loop()
    part = Part(USERS, Draw(len(USERS), 3), PromptWriter(lambda text: text.count(" ")), "m")
    return Replay(part, client, Pace(0.0, loop.time, asyncio.sleep), patience_s)


ROWS = [Row(float(number), 50, 9) for number in range(40)]


async def test_a_whole_answer_tells_its_usage_and_its_lowered_cap() -> None:
    usage = Usage(prompt_tokens=30, cached_tokens=0, output_tokens=5, reasoning_tokens=0)
    assert await asked_once(answering(200, WHOLE)) == Reply(usage=usage)
    lowered = answering(200, {"choices": []}, **{"x-quota-output-cap-tokens": "20"})
    assert await asked_once(lowered) == Reply(lowered=True)


async def test_a_stream_tells_its_usage_only_when_it_has_one() -> None:
    text = json.dumps({"choices": [{"delta": {"content": "Hello " * 2000}}], "usage": None})
    last = json.dumps({"choices": [], "usage": USAGE})
    told = await asked_once(stream(text, text, last, "[DONE]"))
    assert told.usage is not None
    assert (told.usage.prompt_tokens, told.usage.output_tokens) == (30, 5)
    assert await asked_once(stream(text, "[DONE]")) == Reply()


@pytest.mark.parametrize("events", [(), ('{"choices":[]}',), ('{"error":{"code":"x"}}',)])
async def test_a_stream_without_its_end_has_failed(events: tuple[str, ...]) -> None:
    with pytest.raises(Failed, match="a stream broke off"):
        await asked_once(stream(*events))


async def test_a_refusal_is_told_by_its_code() -> None:
    refused = {"error": {"type": "insufficient_quota", "code": "insufficient_quota"}}
    assert await asked_once(answering(429, refused)) == Reply(refusal="insufficient_quota")
    uncoded = {"error": {"type": "server_error", "code": None}}
    assert await asked_once(answering(500, uncoded)) == Reply(refusal="server_error")
    assert await asked_once(answering(502, "Bad Gateway")) == Reply(refusal="status 502")


async def test_a_gateway_that_is_unavailable_asks_to_come_again() -> None:
    with pytest.raises(Failed, match="shutting_down"):
        await asked_once(answering(503, {"error": {"code": "shutting_down"}}))


async def test_every_row_is_sent_once_by_its_user_and_counted_on_its_tier() -> None:
    sent: Counter[str] = Counter()
    streams = 0

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal streams
        body = json.loads(await request.read())
        streams += body.get("stream", False)
        sent[request.headers["Authorization"]] += 1
        if request.headers["Authorization"] == "Bearer key-bob":
            return web.json_response({"error": {"code": "no"}}, status=429)
        return await (stream("[DONE]") if "stream" in body else answering(200, WHOLE))(request)

    answered: list[None] = []
    async with server(handle) as url, GatewayClient(url, 4) as client:
        replay = replay_of(client, 5)
        await replay.run(ROWS, 4, lambda: answered.append(None))
    free, lite = replay.counts["free"], replay.counts["lite"]
    assert len(answered) == 40
    assert (free.users, lite.users) == (1, 1)
    assert (free.requests, lite.requests) == (sent["Bearer key-ann"], sent["Bearer key-bob"])
    assert free.requests + lite.requests == 40
    assert (free.admitted, free.refused) == (free.requests, {})
    assert (lite.admitted, lite.refused) == (0, {"no": lite.requests})
    assert free.prompt_tokens == 30 * free.with_usage
    assert 0 < free.with_usage < free.admitted
    assert 0 < streams < 40


async def test_what_failed_is_sent_again_until_the_gateway_is_back() -> None:
    asks = 0

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal asks
        asks += 1
        if asks in (5, 6, 7):  # killed in the middle of an answer
            assert request.transport is not None
            request.transport.abort()
        if asks in (8, 9):  # and starting
            return web.json_response({"error": {"code": "no_stores_yet"}}, status=503)
        return web.json_response(WHOLE)

    async with server(handle) as url, GatewayClient(url, 2) as client:
        replay = replay_of(client, 30)
        await replay.run(ROWS, 2, lambda: None)
    counts = replay.counts.values()
    assert replay.gone is None
    assert sum(each.admitted for each in counts) == 40
    assert asks == 45
    assert 2 <= sum(each.failed for each in counts) <= 5  # rows, however often each was sent


async def test_a_gateway_that_never_comes_back_ends_the_replay() -> None:
    async with server(answering(200, WHOLE)) as url:
        pass
    async with GatewayClient(url, 2) as client:
        replay = replay_of(client, 0)
        await replay.run(ROWS, 2, lambda: None)
    assert replay.gone is not None
    assert "127.0.0.1" in replay.gone
    assert 0 < sum(counts.requests for counts in replay.counts.values()) <= 2
