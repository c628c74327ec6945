"""What an application is told of a quota without spending any: whether a call would fit, and where
a user stands."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from gateway.app.stores import Stores
from tests.gateway.loopback import ask
from tests.gateway.quota_calls import post, report, service_key, status
from tests.gateway.running_gateway import MODEL, MakeGateway, RunningGateway


def check(gateway: RunningGateway, key: str, tokens: int, **fields: Any) -> Any:
    reply = post(gateway, "check", key, {"model": MODEL, "tokens": tokens, **fields})
    assert reply.status == 200, reply
    return reply.json


def test_whether_it_would_fit_and_nothing_changes_by_asking(gateway: RunningGateway) -> None:
    user, key = gateway.new_user("free", 99_000)
    before = gateway.shown(user)
    fits = check(gateway, key, 1_000)
    assert (fits["fits"], fits["decision"], fits["reason"]) == (True, "admitted", None)
    assert (fits["quota"]["remaining_tokens"], fits["quota"]["held_tokens"]) == (1_000, 0)
    too_much = check(gateway, key, 1_001)
    assert (too_much["fits"], too_much["reason"]) == (False, "insufficient_quota")
    assert (too_much["quota"]["limit"], too_much["retry_after_s"] > 0) == ("month", True)
    assert "upgrade to the tier 'lite'" in too_much["message"]
    assert check(gateway, key, 100_001)["reason"] == "request_exceeds_quota"
    assert check(gateway, key, 1, model="of-nobody")["reason"] == "model_not_allowed"
    assert gateway.shown(user) == before
    assert report(gateway, key, total_tokens=1_000).status == 200, "asking holds nothing"
    for body in ({}, {"model": MODEL}, {"model": MODEL, "tokens": -1}, {"tokens": 1, "x": 1}):
        assert post(gateway, "check", key, body).status == 400, body


def test_a_service_asks_for_others(gateway: RunningGateway) -> None:
    user, _ = gateway.new_user("free", 100_000)
    service = service_key(gateway)
    told = check(gateway, service, 1, user=user)
    assert (told["user"], told["fits"]) == (user, False)
    gateway.cli("user", "set-tier", user, "lite")
    assert check(gateway, service, 1, user=user)["fits"], "the next question knows it"
    assert status(gateway, service, f"?user={user}").json["quota"]["tier"] == "lite"
    assert status(gateway, service).code == (400, "invalid_value")
    assert status(gateway, service, "?user=nobody-here").code == (404, "user_unknown")


def test_where_a_user_stands(gateway: RunningGateway) -> None:
    user, key = gateway.new_user("full")
    gateway.in_stores(lambda stores: _begin_in_kiritimati(gateway, stores, user))
    for tokens in (100, 250):
        assert report(gateway, key, total_tokens=tokens, tag="quiz").status == 200
    gateway.ledger_rows(user, 2)
    reply = status(gateway, key)
    assert (reply.status, reply.headers["cache-control"]) == (200, "no-store")
    told = reply.json
    assert (told["user"], told["payer"], told["member"]) == (user, user, None)
    quota = told["quota"]
    assert (quota["used_tokens"], quota["held_tokens"], quota["tier"]) == (350, 0, "full")
    assert (
        quota["remaining_tokens"] == quota["limit_tokens"] - 350 == told["limits"]["tokens"] - 350
    )
    assert quota["topup"]["price_gbp"]
    period = told["period"]
    assert (
        datetime.fromisoformat(period["reset_local"]).timestamp()
        == datetime.fromisoformat(period["reset_at"]).timestamp()
    )
    history = told["history"]
    assert (sum(day["tokens"] for day in history["days"]), told["history_missing"]) == (350, None)
    assert [day["day"] for day in history["days"]] == sorted({d["day"] for d in history["days"]})
    newest = history["charges"][0]
    assert (newest["charged_tokens"], newest["tag"], newest["quality"]) == (
        250,
        "quiz",
        "estimated",
    )
    assert (newest["cost_source"], newest["route"]) == ("price_list", "quota_usage")
    assert told["spent_gbp"] == f"{sum(float(c['cost_gbp']) for c in history['charges']):.9f}"
    assert told["pace"]["tokens_a_day"] >= 0
    assert abs(datetime.fromisoformat(told["at"]).timestamp() - datetime.now().timestamp()) < 60


async def _begin_in_kiritimati(gateway: RunningGateway, stores: Stores, user: str) -> None:
    await stores.accounts(gateway.settings).set_calendar(user, 17, "Pacific/Kiritimati")


def test_a_member_sees_its_own_charges_and_what_the_team_has_left(gateway: RunningGateway) -> None:
    one, key = gateway.new_user()
    other, other_key = gateway.new_user()
    team = f"team-{one}"

    async def join(stores: Stores) -> None:
        people = stores.people(gateway.settings)
        await people.create_team(team, "lite")
        for user in (one, other):
            await people.join_team(user, team)

    gateway.in_stores(join)
    assert report(gateway, key, total_tokens=100).status == 200
    assert report(gateway, other_key, total_tokens=30).status == 200
    gateway.ledger_rows(one)
    gateway.ledger_rows(other)
    told = status(gateway, key).json
    assert (told["payer"], told["quota"]["used_tokens"]) == (team, 130)
    assert told["member"] == {"used_tokens": 100, "held_tokens": 0}
    assert [charge["charged_tokens"] for charge in told["history"]["charges"]] == [100]


@pytest.mark.parametrize("query", ["?user=%2e%2e", "?x=1", "?user=", "?user=a&user=b", "?user=%ff"])
def test_a_query_that_means_nothing_is_refused(gateway: RunningGateway, query: str) -> None:
    _, key = gateway.new_user()
    assert status(gateway, key, query).status == 400
    assert status(gateway, key, "?user=somebody-else").code == (403, "key_not_allowed")


def test_pages_of_listed_origins_may_ask(start_gateway: MakeGateway) -> None:
    origin = "https://app.example.org"
    gateway = start_gateway(cors={"origins": [origin]})
    _, key = gateway.new_user()
    asked = {"Origin": origin, "Access-Control-Request-Method": "GET"}
    asked["Access-Control-Request-Headers"] = "authorization"
    preflight = ask(f"{gateway.proxy}/quota/v1/status", "OPTIONS", headers=asked)
    assert preflight.status == 204
    assert preflight.headers["access-control-allow-origin"] == origin
    headers = {"Authorization": f"Bearer {key}", "Origin": origin}
    for path in ("status", "openapi.json", "nothing"):
        reply = ask(f"{gateway.proxy}/quota/v1/{path}", headers=headers)
        assert reply.headers["access-control-allow-origin"] == origin
    headers["Origin"] = "https://evil.example.org"
    reply = ask(f"{gateway.proxy}/quota/v1/status", headers=headers)
    assert "access-control-allow-origin" not in reply.headers


@contextmanager
def closed(postgres_url: str) -> Iterator[None]:
    """The database takes no connection, and breaks those that it has."""
    name = urlsplit(postgres_url).path[1:]

    async def turn(is_open: bool) -> None:
        session = await asyncpg.connect(urlsplit(postgres_url)._replace(path="/postgres").geturl())
        try:
            await session.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {is_open}")
            if not is_open:
                await session.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1",
                    name,
                )
        finally:
            await session.close()

    asyncio.run(turn(False))
    try:
        yield
    finally:
        asyncio.run(turn(True))


def test_without_the_ledger_the_live_figures_are_told_all_the_same(
    start_gateway: MakeGateway, redis_url: str, postgres_url: str
) -> None:
    keys = {"keys": {"pepper": "a-pepper-of-this-test"}}
    gateway = start_gateway(redis={"url": redis_url}, ledger={"url": postgres_url}, identity=keys)
    user, key = gateway.new_user()
    service = service_key(gateway)
    assert report(gateway, key).status == 200
    assert report(gateway, service, user=user).status == 200
    gateway.ledger_rows(user, 2)
    with closed(postgres_url):
        told = status(gateway, key).json
        assert (told["quota"]["used_tokens"], told["history"]) == (200, None)
        assert "ledger" in told["history_missing"]
        assert status(gateway, service, f"?user={user}").status == 200
        assert report(gateway, key).status == 200
        assert report(gateway, service, user=user).status == 200
        stranger = status(gateway, service, "?user=never-seen")
        assert stranger.code == (503, "quota_backend_unavailable")
