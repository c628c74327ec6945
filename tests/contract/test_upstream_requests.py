"""What an adapter of the Upstream port sends."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from gateway.adapters.upstream.origin import Origin
from gateway.ports.upstream import UpstreamCall
from tests.contract.upstream_calls import BODY, KEY, RID, OpenTo, asked
from tests.contract.upstream_server import closed_port, http, serving


async def test_a_request_has_these_headers_and_no_others(open_to: OpenTo) -> None:
    async with serving(http()).running() as server, open_to(server.url) as upstream:
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


async def test_without_a_key_no_credentials_are_sent(open_to: OpenTo) -> None:
    async with serving(http()).running() as server, open_to(server.url, api_key="") as upstream:
        await asked(upstream)
    assert b"authorization" not in server.requests[0][0].lower()


async def test_azure_has_the_deployment_in_its_path_and_the_key_in_a_header_of_its_own(
    open_to: OpenTo,
) -> None:
    azure: dict[str, Any] = {"auth": "api-key", "api_version": "2024-10-21"}
    async with serving(http()).running() as server:
        base = server.url.removesuffix("/v1")
        async with open_to(base, **azure) as upstream:
            await asked(upstream)
    head = server.requests[0][0].decode()
    path = "/openai/deployments/m/chat/completions?api-version=2024-10-21"
    assert head.startswith(f"POST {path} HTTP/1.1\r\n")
    assert f"api-key: {KEY}\r\n" in head
    assert "authorization" not in head.lower()


@pytest.mark.parametrize("name", ["a/b", "..", "m?x=1", "m#x", "m%2fx", "m b", "é"])
def test_no_name_of_a_model_leads_elsewhere(name: str) -> None:
    call = UpstreamCall("openai", name, "/chat/completions", BODY, rid=RID, user_id="ada")
    target = Origin("http://azure", KEY, 1, 1, api_version="2024-10-21").target(call)
    url = URL(f"http://azure{target}", encoded=True)
    parts = url.raw_path.split("/")
    assert parts[:3] == ["", "openai", "deployments"]
    assert parts[4:] == ["chat", "completions"]
    assert url.query_string == "api-version=2024-10-21"


async def test_a_private_upstream_can_be_told_who_calls(open_to: OpenTo) -> None:
    async with (
        serving(http()).running() as server,
        open_to(server.url, user_header="X-Quota-User") as upstream,
    ):
        await asked(upstream)
    assert b"X-Quota-User: ada\r\n" in server.requests[0][0]


async def test_proxies_and_netrc_of_the_environment_are_ignored(
    open_to: OpenTo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password secret\n")
    os.chmod(tmp_path / "netrc", 0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, closed_port())
    async with serving(http()).running() as server, open_to(server.url, api_key="") as upstream:
        _, body = await asked(upstream)
    assert body == b"{}"
    assert b"authorization" not in server.requests[0][0].lower()


async def test_cookies_are_not_kept(open_to: OpenTo) -> None:
    cookie = http(b"{}", "Set-Cookie: session=other-users; Path=/")
    async with serving(cookie, http()).running() as server, open_to(server.url) as upstream:
        await asked(upstream)
        await asked(upstream)
    assert b"cookie" not in server.requests[1][0].lower()
