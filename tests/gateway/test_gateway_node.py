"""The official Node SDK, unchanged, in Node and in a page of another origin."""

from __future__ import annotations

from typing import Any

from tests.gateway.loopback import ask
from tests.gateway.node_sdk import calls_in_node, install, require
from tests.gateway.page_server import PageServer
from tests.gateway.running_gateway import MODEL, MakeGateway, RunningGateway, prompt

CHAT = "/v1/chat/completions"
ANSWER = "Hello! Your words arrived, and here is an answer."


def check(results: dict[str, Any]) -> int:
    """Each call answered, with the headers of a quota; the tokens of all, as far as told."""
    tokens = 0
    for name, result in results.items():
        assert "error" not in result, (name, result)
        assert result["headers"]["x-quota-decision"] == "admitted", name
        assert int(result["headers"]["x-quota-remaining-tokens"]) > 0, name
        tokens += result["tokens"] or 0
    assert {result["text"] for result in results.values()} == {ANSWER, None}
    assert results["embedding"]["sizes"] == 1536
    assert results["chatStreamWithoutUsage"]["usage"] is False
    return tokens


def check_ledger(gateway: RunningGateway, user: str, results: dict[str, Any]) -> None:
    """Every call is a row, measured, under the id that its answer carried."""
    rows = {row["event_id"]: row for row in gateway.ledger_rows(user, len(results))}
    for name, result in results.items():
        row = rows[result["headers"]["x-request-id"]]
        assert row["quality"] == "measured", name
        assert result["tokens"] in (None, row["charged_tokens"]), name


def test_in_node(gateway: RunningGateway) -> None:
    install()
    user, key = gateway.new_user("lite")
    results = calls_in_node(f"{gateway.proxy}/v1", key, MODEL)
    assert check(results) > 0
    check_ledger(gateway, user, results)


def test_a_refusal_is_raised_once_in_node(gateway: RunningGateway) -> None:
    install()
    user, key = gateway.new_user("free", 100_000)
    before = gateway.metric("decisions_total", decision="refused", tier="free")
    results = calls_in_node(f"{gateway.proxy}/v1", key, MODEL)
    for name, result in results.items():
        assert (result["error"], result["status"]) == ("RateLimitError", 429), name
        assert result["code"] == "insufficient_quota", name
        assert result["retries"] == "false", name
        assert result["upgrade"]["tier"] == "lite", name
    after = gateway.metric("decisions_total", decision="refused", tier="free")
    assert after - before == len(results)
    assert gateway.shown(user)["used_tokens"] == 100_000


def test_in_a_page_of_another_origin(start_gateway: MakeGateway, pages: PageServer) -> None:
    require("chromium")
    install()
    gateway = start_gateway(cors={"origins": [pages.origin]}, log={"decisions": "all"})
    user, key = gateway.new_user("lite")
    results = pages.told_by("page.html", base=f"{gateway.proxy}/v1", key=key, model=MODEL)
    assert check(results) > 0
    check_ledger(gateway, user, results)
    _, spent = gateway.new_user("free", 100_000)
    refused = pages.told_by("page.html", base=f"{gateway.proxy}/v1", key=spent, model=MODEL)
    assert {result["code"] for result in refused.values()} == {"insufficient_quota"}
    assert {result["upgrade"]["tier"] for result in refused.values()} == {"lite"}
    log = gateway.stderr.read_text()
    assert log.count('"message": "admitted"') == len(results), "log.decisions: all"


def test_a_page_that_is_not_listed_reads_nothing(
    start_gateway: MakeGateway, pages: PageServer
) -> None:
    require("chromium")
    install()
    gateway = start_gateway(cors={"origins": ["https://app.example.org"]})
    user, key = gateway.new_user("lite")
    results = pages.told_by("page.html", base=f"{gateway.proxy}/v1", key=key, model=MODEL)
    assert {result["error"] for result in results.values()} == {"APIConnectionError"}
    assert gateway.shown(user)["used_tokens"] == 0, "a browser asks before it sends"
    assert gateway.stand_in.served(user)["requests"] == 0


def test_the_headers_of_a_page_that_is_listed(start_gateway: MakeGateway) -> None:
    origin = "https://app.example.org"
    gateway = start_gateway(cors={"origins": [origin]}, log={"decisions": "none"})
    _, key = gateway.new_user()
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    asked["Access-Control-Request-Headers"] = "authorization,content-type"
    preflight = ask(gateway.proxy + CHAT, "OPTIONS", headers=asked)
    assert (preflight.status, preflight.body) == (204, b"")
    assert preflight.headers["access-control-allow-origin"] == origin
    assert preflight.headers["access-control-allow-headers"] == "authorization,content-type"
    for body in (prompt("Hi"), prompt("Hi", stream=True), {"model": 3}):
        reply = gateway.chat(key, body, {"Origin": origin})
        assert reply.headers["access-control-allow-origin"] == origin
        assert "x-quota-remaining-tokens" in reply.headers["access-control-expose-headers"]
        assert reply.headers["vary"] == "Origin"
        other = gateway.chat(key, body, {"Origin": "https://evil.example.org"})
        assert "access-control-allow-origin" not in other.headers
    assert ask(gateway.proxy + CHAT, "OPTIONS").code == (404, "route_not_available")
    assert "refused" not in gateway.stderr.read_text(), "log.decisions: none"
