"""What comes back of an answer through an adapter of the Upstream port."""

from __future__ import annotations

import asyncio

import pytest

from gateway.adapters.upstream import answer, session
from gateway.ports.upstream import UpstreamBroke, UpstreamHead
from tests.contract.upstream_calls import OpenTo, asked, send
from tests.contract.upstream_server import Reply, chunked, http, serving
from tests.fakes.upstream import chunks


async def test_of_an_answer_s_headers_only_those_listed_come_back(open_to: OpenTo) -> None:
    listed = (
        *("Content-Type: application/json; charset=utf-8", "Retry-After: 7"),
        *("x-request-id: req_1", "openai-processing-ms: 12", "openai-version: 2020-10-01"),
    )
    others = (
        *("openai-organization: ours", "openai-project: proj_1", "Set-Cookie: a=b"),
        *("x-ratelimit-remaining-tokens: 5", "Server: cloudflare", "Location: /elsewhere"),
        *("Access-Control-Allow-Origin: *", "x-quota-decision: forged"),
    )
    answer = http(b"{}", *listed, *others)
    async with serving(answer).running() as server, open_to(server.url) as upstream:
        head, _ = await asked(upstream)
    assert head == UpstreamHead(
        status=200,
        content_type="application/json; charset=utf-8",
        retry_after="7",
        upstream_id="req_1",
        relayed=(("openai-processing-ms", "12"), ("openai-version", "2020-10-01")),
    )


async def test_an_answer_without_headers_is_json(open_to: OpenTo) -> None:
    async with serving(http()).running() as server, open_to(server.url) as upstream:
        head, _ = await asked(upstream)
    assert head == UpstreamHead(200, "application/json", None, None, ())


async def test_of_two_headers_of_one_name_the_first_counts(open_to: OpenTo) -> None:
    answer = http(b"{}", "x-request-id: 1", "X-Request-Id: 2", "Retry-After: 1", "retry-after: 2")
    async with serving(answer).running() as server, open_to(server.url) as upstream:
        head, _ = await asked(upstream)
    assert head == UpstreamHead(200, "application/json", "1", "1", ())


@pytest.mark.parametrize("value", ["x" * 201, "caf\udce9", "\udcff", "a\tb", ""])
async def test_a_header_that_could_not_be_relayed_or_booked_is_left_out(
    open_to: OpenTo, value: str
) -> None:
    names = ("Content-Type", "Retry-After", "x-request-id", "openai-version")
    answer = http(b"{}", *(f"{name}: {value}" for name in names))
    async with serving(answer).running() as server, open_to(server.url) as upstream:
        head, _ = await asked(upstream)
    assert head == UpstreamHead(200, "application/json", None, None, ())


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
async def test_a_redirect_is_not_followed(open_to: OpenTo, status: str) -> None:
    async with serving(http()).running() as other:
        moved = http(b"gone", f"Location: {other.url}/chat/completions", status=status)
        async with serving(moved).running() as server, open_to(server.url) as upstream:
            head, body = await asked(upstream)
    assert (head.status, body) == (int(status[:3]), b"gone")
    assert (other.connections, len(server.requests)) == (0, 1)


@pytest.mark.parametrize("status", ["200 OK", "400 Bad", "401 No", "429 Slow", "500 Oh", "503 No"])
async def test_any_status_is_an_answer(open_to: OpenTo, status: str) -> None:
    error = http(b'{"error":{}}', status=status)
    async with serving(error).running() as server, open_to(server.url) as upstream:
        head, body = await asked(upstream)
    assert (head.status, body) == (int(status[:3]), b'{"error":{}}')


@pytest.mark.parametrize(
    "coding", ["gzip", "br", "identity, gzip", "identity\r\nContent-Encoding: br"]
)
async def test_a_compressed_answer_is_refused_since_nothing_in_it_can_be_counted(
    open_to: OpenTo, coding: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = http(b"\x1f\x8b not really", f"Content-Encoding: {coding}")
    async with serving(answer, http()).running() as server, open_to(server.url) as upstream:
        with pytest.raises(UpstreamBroke, match=r"compressed|more than one"):
            await asked(upstream)
        assert (await asked(upstream))[1] == b"{}"
    (record,) = caplog.records
    assert record.getMessage().startswith("upstream openai sent what is refused: the answer ")


@pytest.mark.parametrize("coding", ["identity", "Identity"])
async def test_an_answer_may_say_that_it_is_not_compressed(open_to: OpenTo, coding: str) -> None:
    answer = http(b"plain", f"Content-Encoding: {coding}")
    async with serving(answer).running() as server, open_to(server.url) as upstream:
        assert (await asked(upstream))[1] == b"plain"


async def test_a_stream_comes_as_it_arrives(open_to: OpenTo) -> None:
    first = Reply(chunked(b"data: 1\n\n"), "hang")
    async with serving(first).running() as server, open_to(server.url) as upstream:
        answer = await send(upstream)
        assert answer.head.content_type == "text/event-stream"
        assert await asyncio.wait_for(anext(chunks(answer)), 10) == b"data: 1\n\n"
        await answer.close()


async def test_a_body_beyond_the_bound_is_refused(
    open_to: OpenTo, monkeypatch: pytest.MonkeyPatch
) -> None:
    for adapter in (answer, session):
        monkeypatch.setattr(adapter, "BODY_BYTES_MAX", 1000)
    bodies = (http(b"x" * 1000), http(b"x" * 1001), chunked(b"x" * 600, b"y" * 600))
    async with serving(*bodies).running() as server, open_to(server.url, idle_s=3600) as upstream:
        assert len((await asked(upstream))[1]) == 1000
        for _ in range(2):  # at once: nobody waits for more of what is too much already
            with pytest.raises(UpstreamBroke, match="larger"):
                await asked(upstream)
