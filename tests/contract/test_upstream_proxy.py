"""Which adapter an origin gets: a proxy that the environment names is gone through, netrc never."""

from __future__ import annotations

import logging
import os
from contextlib import aclosing
from pathlib import Path

import pytest

from gateway.adapters.upstream.opening import UnfitProxy, Upstreams, open_upstream, proxy_of
from gateway.adapters.upstream.origin import Origin
from gateway.ports.upstream import UpstreamCall, UpstreamUnreachable
from tests.contract.upstream_calls import BODY, KEY, RID
from tests.contract.upstream_server import http, serving

NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
AWAY = "http://model.example/v1"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No proxies but a test's own, and a netrc that must not matter."""
    for name in (*NAMES, *map(str.upper, NAMES)):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "netrc").write_text("default login someone password secret\n")
    os.chmod(tmp_path / "netrc", 0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return monkeypatch


def origins(**urls: str) -> dict[str, Origin]:
    return {name: Origin(url, KEY, 2.0, 30.0) for name, url in urls.items()}


async def ask(upstream: Upstreams, name: str) -> bytes:
    answer = await upstream.send(UpstreamCall(name, "m", "/chat/completions", BODY, RID, "ada"))
    try:
        return await answer.read()
    finally:
        await answer.close()


async def test_without_a_proxy_all_is_direct() -> None:
    async with (
        serving(http()).running() as server,
        aclosing(Opened(openai=server.url)) as opened,
    ):
        assert await ask(opened.upstream, "openai") == b"{}"
        assert opened.upstream._session is None


async def test_an_origin_behind_a_proxy_is_asked_there_with_our_key_and_others_are_not(
    environment: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(http(b"by proxy")).running() as proxy, serving(http()).running() as near:
        environment.setenv("http_proxy", proxy.url.replace("http://", "http://us:pass@"))
        environment.setenv("no_proxy", "127.0.0.1")
        with caplog.at_level(logging.INFO, "gateway.upstream"):
            opened = Opened(away=AWAY, near=near.url)
        async with aclosing(opened):
            assert await ask(opened.upstream, "away") == b"by proxy"
            assert await ask(opened.upstream, "near") == b"{}"
    head = proxy.requests[0][0].decode()
    assert head.startswith(f"POST {AWAY}/chat/completions HTTP/1.1\r\n")
    assert f"\r\nAuthorization: Bearer {KEY}\r\n" in head
    assert "\r\nProxy-Authorization: Basic dXM6cGFzcw==\r\n" in head
    assert near.requests[0][0].startswith(b"POST /v1/chat/completions ")
    assert f"\r\nAuthorization: Bearer {KEY}\r\n".encode() in near.requests[0][0]
    assert [record.getMessage() for record in caplog.records] == [
        "upstream away is reached through the proxy on 127.0.0.1"
    ]


async def test_a_proxy_that_will_not_connect_shows_nothing_to_the_upstream(
    environment: pytest.MonkeyPatch,
) -> None:
    refusal = http(b"no", status="403 Forbidden")
    async with serving(refusal).running() as proxy:
        environment.setenv("HTTPS_PROXY", proxy.url)
        async with aclosing(Opened(openai="https://model.example/v1")) as opened:
            with pytest.raises(UpstreamUnreachable):
                await ask(opened.upstream, "openai")
    (head, _) = proxy.requests[0]
    assert head.startswith(b"CONNECT model.example:443 ")
    assert KEY.encode() not in head


async def test_a_proxy_that_cannot_be_gone_through_is_said_at_the_start(
    environment: pytest.MonkeyPatch,
) -> None:
    environment.setenv("all_proxy", "socks5://us:pass@127.0.0.1:1080")
    with pytest.raises(UnfitProxy, match="upstream 'openai'") as caught:
        open_upstream(origins(openai=AWAY))
    assert "pass" not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "url", "proxy"),
    [
        ({"https_proxy": "http://p:1"}, "https://a.example/v1", "http://p:1"),
        ({"https_proxy": "p:1"}, "https://a.example/v1", "http://p:1"),
        ({"https_proxy": "http://p:1"}, "http://a.example/v1", None),
        ({"ALL_PROXY": "http://p:1"}, "http://a.example/v1", "http://p:1"),
        ({"https_proxy": "http://p:1", "no_proxy": "example"}, "https://a.example/v1", None),
        ({"https_proxy": "http://p:1", "NO_PROXY": "*"}, "https://a.example/v1", None),
        ({"https_proxy": ""}, "https://a.example/v1", None),
        ({}, "https://a.example/v1", None),
    ],
)
def test_the_proxy_of_a_url_is_the_one_that_other_programs_find(
    environment: pytest.MonkeyPatch, variables: dict[str, str], url: str, proxy: str | None
) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)
    assert proxy_of(url) == proxy


class Opened:
    """What `open_upstream` made, to be closed by `aclosing`."""

    def __init__(self, **urls: str) -> None:
        self.upstream = open_upstream(origins(**urls))

    async def aclose(self) -> None:
        await self.upstream.close()
