"""One piece of usage counts once: however often it is reported, wherever, and whatever dies."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
def on(postgres_url: str, make_gateway: MakeGateway) -> On:
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


def test_of_a_hundred_reports_at_once_at_two_gateways_one_counts(on: On, redis_url: str) -> None:
    """Of a user who has room, and of one who has none and spent it already."""
    first, second = on(redis_url).start(), on(redis_url).start("--jobs", "none")
    service = service_key(first)
    for used in (0, 99_950):
        user, _ = first.new_user("free", used)

        def send(place: int, user: str = user, spent: bool = used > 0) -> Reply:
            gateway = (first, second)[place % 2]
            return report(gateway, service, user=user, id="one", already_spent=spent)

        with ThreadPoolExecutor(100) as pool:
            replies = list(pool.map(send, range(100)))
        assert Counter(reply.status for reply in replies) == {200: 100}
        assert {(reply.json["charged_tokens"], reply.json["event_id"]) for reply in replies} == {
            (100, event_id_of(user, "one"))
        }
        adjustment, booked = first.ledger_rows(user, 2)
        assert (adjustment["kind"], booked["charged_tokens"]) == ("adjustment", 100)
        agreed(first, user, used + 100)


async def test_a_gateway_killed_between_hold_and_settlement(
    on: On, redis_url: str, tmp_path: Path
) -> None:
    """The report is made again at once by one user, and by another when its hold has expired."""
    first = on(redis_url).start()  # by this thread: a gateway ends with the one that started it
    async with open_link(redis_url, tmp_path) as link:
        beside = asyncio.to_thread
        doomed = await beside(partial(on(link.url).start, "--jobs", "none"))
        users = [await beside(first.new_user) for _ in range(2)]
        held = {event_id_of(user, "one").encode(): asyncio.Event() for user, _ in users}

        async def lost(reply: bytes, client: asyncio.StreamWriter) -> None:
            found = [rid for rid in held if rid in reply]
            for rid in found:
                held[rid].set()
            if not found:
                client.write(reply)

        for _, key in users:
            await beside(report, first, key, id="before", total_tokens=7)
        link.on_reply = lost
        asked = [
            spawn(beside(report, doomed, key, id="one"), "a report", awaited=True)
            for _, key in users
        ]
        for each in held.values():
            await asyncio.wait_for(each.wait(), WAIT_S)
        await beside(doomed.kill)
        await asyncio.gather(*asked, return_exceptions=True)
        (at_once, key), (late, late_key) = users
        assert (await beside(first.shown, at_once))["held_tokens"] == 100
        await beside(_counts_once, first, at_once, key, 2)
        await beside(_nothing_is_held, first, late)
        (expired,) = [
            row for row in await beside(first.ledger_rows, late, 2) if row["outcome"] != "recorded"
        ]
        assert (expired["charged_tokens"], expired["outcome"]) == (0, "unknown_upstream")
        await beside(_counts_once, first, late, late_key, 3)
        for user, _ in users:
            await beside(agreed, first, user, 107)


def _counts_once(gateway: RunningGateway, user: str, key: str, rows_wanted: int) -> None:
    """However often it is reported from now on."""
    for _ in range(2):
        again = report(gateway, key, id="one")
        assert (again.status, again.json["charged_tokens"]) == (200, 100), again
    other = report(gateway, key, id="one", total_tokens=101)
    assert other.code == (409, "idempotency_key_reused")
    rows = gateway.ledger_rows(user, rows_wanted)
    assert sum(row["charged_tokens"] for row in rows) == 107
    until(lambda: gateway.shown(user)["used_tokens"] == 107, WAIT_S, "107 tokens used")


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
