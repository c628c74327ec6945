"""One piece of usage counts once: however often it is reported, wherever, and whatever dies."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import redis

from gateway.core.elsewhere import event_id_of
from gateway.ports.tasks import spawn
from tests.contract.redis_link import open_link
from tests.gateway.loopback import Reply
from tests.gateway.quota_calls import report, service_key
from tests.gateway.running_gateway import MakeGateway, RunningGateway
from tests.gateway.waiting_for import until

WAIT_S = 30.0
IDENTITY = {"keys": {"pepper": "a-pepper-of-this-test"}}
LEASE = {"ms": 3000, "grace_ms": 500, "heartbeat_ms": 500}
On = Callable[[str], RunningGateway]


@pytest.fixture
def on(make_gateway: MakeGateway, postgres_url: str) -> On:
    """A gateway, not started, on this Redis and the test's Postgres."""
    return lambda url: make_gateway(
        redis={"url": url}, ledger={"url": postgres_url}, identity=IDENTITY, lease=LEASE
    )


def agreed(gateway: RunningGateway, user: str, tokens: int) -> None:
    """The counters come to so many tokens, and to what the ledger says."""
    until(lambda: gateway.shown(user)["used_tokens"] == tokens, WAIT_S, f"{tokens} tokens used")
    verdict = gateway.cli("ledger", "verify")
    assert verdict["agrees"], verdict
    assert verdict["open_holds"] == 0


@pytest.mark.parametrize("used", [0, 99_950], ids=["fits", "spent"])
def test_of_a_hundred_reports_at_once_at_two_gateways_one_counts(
    on: On, redis_url: str, used: int
) -> None:
    first, second = on(redis_url).start(), on(redis_url).start("--jobs", "none")
    user, _ = first.new_user("free", used)
    service = service_key(first)

    def send(place: int) -> Reply:
        gateway = (first, second)[place % 2]
        return report(gateway, service, user=user, id="one", already_spent=used > 0)

    with ThreadPoolExecutor(100) as pool:
        replies = list(pool.map(send, range(100)))
    assert Counter(reply.status for reply in replies) == {200: 100}
    assert {(reply.json["charged_tokens"], reply.json["event_id"]) for reply in replies} == {
        (100, event_id_of(user, "one"))
    }
    adjustment, booked = first.ledger_rows(user, 2)
    assert (adjustment["kind"], booked["charged_tokens"]) == ("adjustment", 100)
    agreed(first, user, used + 100)


@pytest.mark.parametrize("after_expiry", [False, True], ids=["at once", "after its lease"])
async def test_a_gateway_killed_between_hold_and_settlement(
    on: On, redis_url: str, tmp_path: Path, after_expiry: bool
) -> None:
    async with open_link(redis_url, tmp_path) as link:
        beside = asyncio.to_thread
        first = await beside(on(redis_url).start)
        doomed = await beside(partial(on(link.url).start, "--jobs", "none"))
        user, key = await beside(first.new_user)
        await beside(report, first, key, id="before", total_tokens=7)
        rid, held = event_id_of(user, "one").encode(), asyncio.Event()

        async def lost(reply: bytes, client: asyncio.StreamWriter) -> None:
            if rid in reply:
                held.set()
            else:
                client.write(reply)

        link.on_reply = lost
        asked = spawn(beside(report, doomed, key, id="one"), "a report", awaited=True)
        await asyncio.wait_for(held.wait(), WAIT_S)
        await beside(doomed.kill)
        with suppress(ConnectionError):
            await asked
        assert (await beside(first.shown, user))["held_tokens"] == 100
        if after_expiry:
            await beside(_nothing_is_held, first, user)
            (expired,) = [row for row in await beside(first.ledger_rows, user, 2) if row["route"]
                          and row["outcome"] != "recorded"]  # fmt: skip
            assert (expired["charged_tokens"], expired["outcome"]) == (0, "unknown_upstream")
        for _ in range(2):
            again = await beside(report, first, key, id="one")
            assert (again.status, again.json["charged_tokens"]) == (200, 100), again
        other = await beside(partial(report, first, key, id="one", total_tokens=101))
        assert other.code == (409, "idempotency_key_reused")
        rows = await beside(first.ledger_rows, user, 3 if after_expiry else 2)
        assert sum(row["charged_tokens"] for row in rows) == 107
        await beside(agreed, first, user, 107)


def _nothing_is_held(gateway: RunningGateway, user: str) -> None:
    until(lambda: gateway.shown(user)["open_holds"] == 0, WAIT_S, "the hold to expire")


def test_after_redis_lost_everything_the_ledger_knows_the_report(on: On, redis_url: str) -> None:
    gateway = on(redis_url).start()
    user, key = gateway.new_user()
    told = report(gateway, key, id="one")
    gateway.ledger_rows(user)
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    again = report(gateway, key, id="one")
    assert (again.status, again.json["event_id"]) == (200, told.json["event_id"])
    agreed(gateway, user, 100)
    assert len(gateway.ledger_rows(user)) == 1


def test_while_redis_is_away_nothing_is_booked_and_the_caller_comes_again(
    start_gateway: MakeGateway, redis_url: str
) -> None:
    gateway = start_gateway(redis={"url": redis_url, "deadline_ms": 300})
    user, key = gateway.new_user()
    until(lambda: report(gateway, key, id="before").status == 200, WAIT_S, "the first report")
    with redis.Redis.from_url(redis_url) as client:
        client.client_pause(3_000)
        refused = report(gateway, key, id="one")
    assert refused.code == (503, "quota_backend_unavailable")
    assert "same id" in refused.error["message"]
    until(lambda: report(gateway, key, id="one").status == 200, WAIT_S, "Redis to be back")
    agreed(gateway, user, 200)
