"""The HTTP upstream against a server that does, byte for byte, what a test tells it."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import struct
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from gateway.adapters import http_upstream
from gateway.adapters.http_upstream import HttpAnswer, HttpUpstream, Origin
from gateway.ports.tasks import spawn
from gateway.ports.upstream import (
    UpstreamBroke,
    UpstreamCall,
    UpstreamHead,
    UpstreamSilent,
    UpstreamUnreachable,
)

KEY = "sk-our-own-key-1234567890"
RID = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
BODY = b'{"model":"m"}'
Then = Literal["keep", "close", "reset", "hang"]


@dataclass(frozen=True)
class Reply:
    """What is answered to a request, and what becomes of the connection then."""

    raw: bytes = b""
    then: Then = "keep"


def http(body: bytes = b"{}", *headers: str, status: str = "200 OK") -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*head, "", ""]).encode("utf-8", "surrogateescape") + body


def chunked(*chunks: bytes) -> bytes:
    """The head and so many chunks of a body that has not ended."""
    parts = [b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks]
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    return head + b"".join(parts)


class Server:
    """A server on a free port. `requests` are heads and bodies as they came."""

    def __init__(self, replies: list[Reply]) -> None:
        self._replies = replies
        self.requests: list[tuple[bytes, bytes]] = []
        self.connections = 0
        self.closed = 0
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Server]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        yield self
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                found = re.search(rb"(?i)content-length: (\d+)", head)
                body = await reader.readexactly(int(found.group(1)) if found else 0)
                self.requests.append((head, body))
                reply = self._replies.pop(0)
                writer.write(reply.raw)
                await writer.drain()
                if reply.then == "hang":
                    await reader.read()  # until the other side closes
                if reply.then == "reset":
                    linger = struct.pack("ii", 1, 0)
                    writer.get_extra_info("socket").setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, linger
                    )
                if reply.then != "keep":
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self.closed += 1
            writer.close()


def serving(*replies: Reply | bytes) -> Server:
    return Server([each if isinstance(each, Reply) else Reply(each) for each in replies])


@asynccontextmanager
async def upstream_of(
    url: str, idle_s: float = 30.0, api_key: str = KEY, **origin: Any
) -> AsyncIterator[HttpUpstream]:
    upstream = HttpUpstream({"openai": Origin(url, api_key, 2.0, idle_s, **origin)})
    yield upstream
    await upstream.close()


async def send(upstream: HttpUpstream) -> HttpAnswer:
    return await upstream.send(
        UpstreamCall("openai", "m", "/chat/completions", BODY, rid=RID, user_id="ada")
    )


async def asked(upstream: HttpUpstream) -> tuple[UpstreamHead, bytes]:
    """One call, its body read to the end."""
    answer = await send(upstream)
    try:
        return answer.head, await answer.read()
    finally:
        await answer.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while True:
            if condition():
                return
            await asyncio.sleep(0.001)


def closed_port() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


# --- what is sent ------------------------------------------------------------------------------


async def test_a_request_has_these_headers_and_no_others() -> None:
    async with serving(http()).running() as server, upstream_of(server.url) as upstream:
        await asked(upstream)
    ((head, body),) = server.requests
    line, *headers = head.decode().rstrip().split("\r\n")
    assert line == "POST /v1/chat/completions HTTP/1.1"
    assert sorted(header.lower() for header in headers) == [
        "accept-encoding: identity",
        f"authorization: bearer {KEY}",
        f"content-length: {len(BODY)}",
        "content-type: application/json",
        f"host: {server.url.split('/')[2]}",
        f"x-client-request-id: {RID}",
    ]
    assert body == BODY


async def test_without_a_key_no_credentials_are_sent() -> None:
    async with serving(http()).running() as server, upstream_of(server.url, api_key="") as upstream:
        await asked(upstream)
    assert b"authorization" not in server.requests[0][0].lower()


async def test_azure_has_the_deployment_in_its_path_and_the_key_in_a_header_of_its_own() -> None:
    azure: dict[str, Any] = {"auth": "api-key", "api_version": "2024-10-21"}
    async with serving(http()).running() as server:
        base = server.url.removesuffix("/v1")
        async with upstream_of(base, **azure) as upstream:
            await asked(upstream)
    head = server.requests[0][0].decode()
    path = "/openai/deployments/m/chat/completions?api-version=2024-10-21"
    assert head.startswith(f"POST {path} HTTP/1.1\r\n")
    assert f"api-key: {KEY}\r\n" in head
    assert "authorization" not in head.lower()


@pytest.mark.parametrize("name", ["a/b", "..", "m?x=1", "m#x", "m%2fx", "m b", "é"])
async def test_no_name_of_a_model_leads_elsewhere(name: str) -> None:
    call = UpstreamCall("openai", name, "/chat/completions", BODY, rid=RID, user_id="ada")
    url = Origin("http://azure", KEY, 1, 1, api_version="2024-10-21").url(call)
    parts = url.raw_path.split("/")
    assert parts[:3] == ["", "openai", "deployments"]
    assert parts[4:] == ["chat", "completions"]
    assert url.query_string == "api-version=2024-10-21"


async def test_a_private_upstream_can_be_told_who_calls() -> None:
    async with (
        serving(http()).running() as server,
        upstream_of(server.url, user_header="X-Quota-User") as upstream,
    ):
        await asked(upstream)
    assert b"X-Quota-User: ada\r\n" in server.requests[0][0]


async def test_proxies_and_netrc_of_the_environment_are_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password secret\n")
    os.chmod(tmp_path / "netrc", 0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, closed_port())
    async with serving(http()).running() as server, upstream_of(server.url, api_key="") as upstream:
        _, body = await asked(upstream)
    assert body == b"{}"
    assert b"authorization" not in server.requests[0][0].lower()


async def test_cookies_are_not_kept() -> None:
    cookie = http(b"{}", "Set-Cookie: session=other-users; Path=/")
    async with serving(cookie, http()).running() as server, upstream_of(server.url) as upstream:
        await asked(upstream)
        await asked(upstream)
    assert b"cookie" not in server.requests[1][0].lower()


# --- what comes back ---------------------------------------------------------------------------


async def test_of_an_answer_s_headers_only_those_listed_come_back() -> None:
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
    async with serving(answer).running() as server, upstream_of(server.url) as upstream:
        head, _ = await asked(upstream)
    assert head == UpstreamHead(
        status=200,
        content_type="application/json; charset=utf-8",
        retry_after="7",
        upstream_id="req_1",
        relayed=(("openai-processing-ms", "12"), ("openai-version", "2020-10-01")),
    )


async def test_an_answer_without_headers_is_json() -> None:
    async with serving(http()).running() as server, upstream_of(server.url) as upstream:
        head, _ = await asked(upstream)
    assert head == UpstreamHead(200, "application/json", None, None, ())


@pytest.mark.parametrize("value", ["x" * 201, "caf\udce9", "\udcff", "a\tb", ""])
async def test_a_header_that_could_not_be_relayed_or_booked_is_left_out(value: str) -> None:
    names = ("Content-Type", "Retry-After", "x-request-id", "openai-version")
    answer = http(b"{}", *(f"{name}: {value}" for name in names))
    async with serving(answer).running() as server, upstream_of(server.url) as upstream:
        head, _ = await asked(upstream)
    assert head == UpstreamHead(200, "application/json", None, None, ())


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
async def test_a_redirect_is_not_followed(status: str) -> None:
    async with serving(http()).running() as other:
        moved = http(b"gone", f"Location: {other.url}/chat/completions", status=status)
        async with serving(moved).running() as server, upstream_of(server.url) as upstream:
            head, body = await asked(upstream)
    assert (head.status, body) == (int(status[:3]), b"gone")
    assert (other.connections, len(server.requests)) == (0, 1)


@pytest.mark.parametrize("status", ["200 OK", "400 Bad", "401 No", "429 Slow", "500 Oh", "503 No"])
async def test_any_status_is_an_answer(status: str) -> None:
    error = http(b'{"error":{}}', status=status)
    async with serving(error).running() as server, upstream_of(server.url) as upstream:
        head, body = await asked(upstream)
    assert (head.status, body) == (int(status[:3]), b'{"error":{}}')


async def test_a_body_comes_as_it_was_sent_even_where_it_says_it_is_compressed() -> None:
    answer = http(b"\x1f\x8b not really", "Content-Encoding: gzip")
    async with serving(answer).running() as server, upstream_of(server.url) as upstream:
        assert (await asked(upstream))[1] == b"\x1f\x8b not really"


async def test_a_stream_comes_as_it_arrives() -> None:
    first = Reply(chunked(b"data: 1\n\n"), "hang")
    async with serving(first).running() as server, upstream_of(server.url) as upstream:
        answer = await send(upstream)
        assert answer.head.content_type == "text/event-stream"
        assert await asyncio.wait_for(anext(answer.chunks()), 10) == b"data: 1\n\n"
        await answer.close()


async def test_a_body_beyond_the_bound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_upstream, "BODY_BYTES_MAX", 1000)
    bodies = (http(b"x" * 1000), http(b"x" * 1001), chunked(b"x" * 600, b"y" * 600))
    async with serving(*bodies).running() as server, upstream_of(server.url) as upstream:
        assert len((await asked(upstream))[1]) == 1000
        for _ in range(2):
            with pytest.raises(UpstreamBroke, match="larger"):
                await asked(upstream)


def pooled(upstream: HttpUpstream) -> list[object]:
    """The open connections that wait for the next call."""
    connector = upstream._session.connector
    assert connector is not None
    links = [link for waiting in connector._conns.values() for link, _ in waiting]
    return [link for link in links if link.is_connected()]


# --- connections -------------------------------------------------------------------------------


async def test_a_body_read_to_its_end_gives_its_connection_back() -> None:
    ended = chunked(b"data: 1\n\n") + b"0\r\n\r\n"
    replies = (http(), ended, http(status="429 Slow"), http())
    async with serving(*replies).running() as server, upstream_of(server.url) as upstream:
        for _ in replies:
            await asked(upstream)
    assert (len(server.requests), server.connections) == (4, 1)


async def test_a_body_that_was_not_read_to_its_end_takes_its_connection_with_it() -> None:
    half = Reply(chunked(b"data: 1\n\n"))
    async with serving(half, http()).running() as server, upstream_of(server.url) as upstream:
        answer = await send(upstream)
        await anext(answer.chunks())
        await answer.close()
        assert (await asked(upstream))[1] == b"{}"
    assert server.connections == 2


async def test_a_connection_that_upstream_closed_meanwhile_is_replaced() -> None:
    replies = (Reply(http(), "close"), http())
    async with serving(*replies).running() as server, upstream_of(server.url) as upstream:
        await asked(upstream)
        await until(lambda: not pooled(upstream))
        assert (await asked(upstream))[1] == b"{}"
    assert (len(server.requests), server.connections) == (2, 2)


@pytest.mark.parametrize("then", ["close", "reset"])
async def test_a_request_that_broke_on_a_reused_connection_is_not_sent_again(then: Then) -> None:
    replies = (Reply(http()), Reply(b"", then), Reply(http()))
    async with serving(*replies).running() as server, upstream_of(server.url) as upstream:
        await asked(upstream)
        with pytest.raises(UpstreamBroke):
            await asked(upstream)
    assert (len(server.requests), server.connections) == (2, 1)


async def test_calls_at_the_same_time_each_have_a_connection_and_their_own_answer() -> None:
    replies = [http(b"%d" % number) for number in range(20)]
    async with serving(*replies).running() as server, upstream_of(server.url) as upstream:
        bodies = await asyncio.gather(*(asked(upstream) for _ in range(20)))
    assert sorted(int(body) for _, body in bodies) == list(range(20))


# --- trouble -----------------------------------------------------------------------------------


async def trouble(url: str, idle_s: float = 30.0) -> Exception:
    async with upstream_of(url, idle_s) as upstream:
        with pytest.raises((UpstreamUnreachable, UpstreamBroke, UpstreamSilent)) as caught:
            await asked(upstream)
    return caught.value


async def test_a_closed_port_is_out_of_reach() -> None:
    assert isinstance(await trouble(closed_port()), UpstreamUnreachable)


async def test_a_name_that_nobody_has_is_out_of_reach() -> None:
    assert isinstance(await trouble("http://nobody.invalid"), UpstreamUnreachable)


async def test_a_server_without_tls_saw_nothing_of_the_request() -> None:
    async with serving().running() as server:
        error = await trouble(server.url.replace("http:", "https:"))
    assert isinstance(error, UpstreamUnreachable)
    assert server.requests == []


@pytest.mark.parametrize("then", ["close", "reset"])
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",
        chunked(b"data: 1\n\n"),
        chunked(b"data: 1\n\n")[:-4],
    ],
    ids=len,
)
async def test_a_connection_that_ends_early_broke(raw: bytes, then: Then) -> None:
    async with serving(Reply(raw, then)).running() as server:
        assert isinstance(await trouble(server.url), UpstreamBroke)
    assert len(server.requests) == 1


@pytest.mark.parametrize("raw", [b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\0" * 50])
async def test_what_is_not_http_broke(raw: bytes) -> None:
    async with serving(Reply(raw, "close")).running() as server:
        assert isinstance(await trouble(server.url), UpstreamBroke)


@pytest.mark.parametrize(
    "raw",
    [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", chunked(b"1")],
    ids=len,
)
async def test_a_server_that_says_nothing_more_is_silent(raw: bytes) -> None:
    async with serving(Reply(raw, "hang")).running() as server:
        assert isinstance(await trouble(server.url, idle_s=0.1), UpstreamSilent)


async def test_what_came_before_the_trouble_is_not_lost() -> None:
    half = Reply(chunked(b"data: 1\n\n", b"data: 2\n\n"), "close")
    async with serving(half).running() as server, upstream_of(server.url) as upstream:
        answer = await send(upstream)
        got: list[bytes] = []
        with pytest.raises(UpstreamBroke):
            await read_into(got, answer)
        await answer.close()
    assert b"".join(got) == b"data: 1\n\ndata: 2\n\n"


async def read_into(got: list[bytes], answer: HttpAnswer) -> None:
    async for data in answer.chunks():
        got.append(data)


async def test_no_error_names_the_key_the_user_or_the_address() -> None:
    errors = [await trouble(closed_port()), await trouble("http://nobody.invalid")]
    for reply in (Reply(b"", "close"), Reply(b"\0" * 50, "close"), Reply(chunked(b"1"), "close")):
        async with serving(reply).running() as server:
            errors.append(await trouble(server.url))
    async with serving(Reply(b"", "hang")).running() as server:
        errors.append(await trouble(server.url, idle_s=0.1))
    for error in errors:
        shown = "".join(traceback.format_exception_only(error)) + repr(error)
        assert not any(word in shown for word in (KEY, "Bearer", "ada", "127.0.0.1", "nobody"))
        assert error.__suppress_context__


async def test_a_call_given_up_leaves_no_connection_behind() -> None:
    async with serving(Reply(b"", "hang")).running() as server, upstream_of(server.url) as upstream:
        call = spawn(send(upstream), "call", awaited=True)
        await until(lambda: server.requests)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(lambda: server.closed == 1)
