"""Gateways whose Redis falls silent: what they let through meanwhile, and that they go on alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.frozen_redis import frozen
from tests.gateway.loopback import Reply
from tests.gateway.running_gateway import MakeGateway, RunningGateway, prompt
from tests.gateway.waiting_for import until

WAIT_S = 30.0
IDENTITY = {"keys": {"pepper": "a-pepper-of-this-test"}}
ALLOWANCE, LEFT, OUTAGE_TOKENS = 100_000, 200, 300
CALLS_MAX = 40
TINY, SMALL = prompt("Hello", max_tokens=16), prompt("Hello", max_tokens=60)


def agreed(gateway: RunningGateway) -> None:
    """Redis, ledger and upstream have the same tokens."""
    verdict = gateway.cli("ledger", "verify", "--upstream", gateway.stand_in.url)
    assert verdict["agrees"], verdict
    assert not any(line["redis_off"] or line["upstream_off"] for line in verdict["lines"])


def test_a_frozen_redis_is_not_waited_for_and_nothing_is_lost_or_counted_twice(
    start_gateway: Callable[..., RunningGateway], redis_url: str, postgres_url: str
) -> None:
    gateway = start_gateway(
        redis={"url": redis_url, "deadline_ms": 150, "mode": "closed"},
        ledger={"url": postgres_url},
        identity=IDENTITY,
    )
    gateway.stand_in.reset()  # of what it served other gateways
    user_id, key = gateway.new_user("free")
    answered(gateway, key, SMALL, 200)
    assert gateway.metric("redis_breaker_open") == 0
    with frozen(redis_url):
        refused = [gateway.chat(key, SMALL) for _ in range(5)]
        until(lambda: gateway.metric("redis_breaker_open") == 1, WAIT_S, "the breaker to open")
    assert {answer.status for answer in refused} == {503}
    assert {answer.json["error"]["code"] for answer in refused} == {"quota_backend_unavailable"}
    until(lambda: gateway.metric("redis_breaker_open") == 0, WAIT_S, "the breaker to close")
    answered(gateway, key, SMALL, 200)
    gateway.ledger_rows(user_id, 2)
    agreed(gateway)


def spent_in_outage(gateway: RunningGateway, key: str) -> tuple[list[int], Reply]:
    """Call until refused: what each call was charged, and the refusal."""
    charged: list[int] = []
    for _ in range(CALLS_MAX):
        answer = gateway.chat(key, SMALL)
        if answer.status != 200:
            return charged, answer
        assert answer.headers["x-quota-decision"] == "outage"
        charged.append(int(answer.headers["x-quota-charged-tokens"]))
    raise AssertionError(f"{CALLS_MAX} calls were admitted")


@pytest.fixture
def two(make_gateway: MakeGateway, redis_url: str, postgres_url: str) -> list[RunningGateway]:
    """On the same stores, the second without jobs."""
    return [
        make_gateway(
            redis={"url": redis_url, "deadline_ms": 150, "outage_tokens": OUTAGE_TOKENS},
            ledger={"url": postgres_url},
            identity=IDENTITY,
        ).start(*options)
        for options in ((), ("--jobs", "none"))
    ]


def test_known_users_go_on_within_a_bound_and_all_of_it_is_booked_once(
    two: list[RunningGateway], redis_url: str
) -> None:
    """One user has plenty left, one almost nothing, one nothing, and one is not known."""
    first = two[0]
    first.stand_in.reset()  # of what it served other gateways
    (rich_id, rich), (poor_id, poor) = first.new_user(), first.new_user("free", ALLOWANCE - LEFT)
    (_, spent), (_, stranger) = first.new_user("free", ALLOWANCE), first.new_user()
    for gateway in two:
        for key, status in ((rich, 200), (poor, 200), (spent, 429)):
            answered(gateway, key, TINY, status)
    used = settled(first, poor_id)

    with frozen(redis_url):
        of_rich = [spent_in_outage(gateway, rich) for gateway in two]
        of_poor = [spent_in_outage(gateway, poor) for gateway in two]
        for gateway in two:
            assert gateway.chat(stranger, SMALL).status == 503
            refused = gateway.chat(spent, SMALL)
            assert (refused.status, refused.json["error"]["code"]) == (429, "insufficient_quota")
            assert gateway.metric("outage_seconds_total", mode="bounded") > 0
    for charged, refusal in (*of_rich, *of_poor):
        assert (refusal.status, refusal.json["error"]["code"]) == (503, "quota_backend_unavailable")
        assert 0 < sum(charged) <= OUTAGE_TOKENS
    for user_id, calls, made_before in ((rich_id, of_rich, 2), (poor_id, of_poor, 3)):
        charged = [tokens for one, _ in calls for tokens in one]
        rows = first.ledger_rows(user_id, made_before + len(charged))
        found = [row for row in rows if row["outcome"] == "outage"]
        assert sorted(row["charged_tokens"] for row in found) == sorted(charged)
        assert {row["held_tokens"] for row in found} == {0}
    # Each gave away what was left when it last asked, and neither knew of the other.
    used += sum(tokens for one, _ in of_poor for tokens in one)
    assert ALLOWANCE < used <= ALLOWANCE + len(two) * OUTAGE_TOKENS
    assert settled(first, poor_id) == used
    for gateway in two:
        answered(gateway, poor, SMALL, 429)
        assert answered(gateway, rich, SMALL, 200).headers["x-quota-decision"] == "admitted"
    agreed(first)


def answered(gateway: RunningGateway, key: str, body: Any, status: int) -> Reply:
    """The first answer of that status."""

    def found() -> Reply | None:
        reply = gateway.chat(key, body)
        return reply if reply.status == status else None

    return until(found, WAIT_S, f"an answer {status}")


def settled(gateway: RunningGateway, user_id: str) -> int:
    """What the user has used, once nothing is held."""
    until(lambda: gateway.shown(user_id)["held_tokens"] == 0, WAIT_S, "the calls to be settled")
    return int(gateway.shown(user_id)["used_tokens"])
