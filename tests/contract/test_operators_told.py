"""What operators are told, on Postgres: once a period or a day, and by every way on its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.adapters.postgres.connection import Pool
from gateway.adapters.postgres.deliveries import PostgresDeliveries
from gateway.adapters.postgres.directory import PostgresDirectory
from gateway.adapters.postgres.notices import PostgresNotices
from gateway.core.notices import KINDS, OPERATORS_KINDS
from gateway.core.period import Period
from gateway.ports.deliveries import OPERATORS, Cap, Way
from gateway.ports.notices import Alarm
from tests.contract.ledger_samples import FIRST_UTC, NOVEMBER_MS

NOVEMBER = Period(NOVEMBER_MS, NOVEMBER_MS + 30 * 86_400_000)
FREE, LITE = Cap("free", 1000, NOVEMBER), Cap("lite", 1000, NOVEMBER)
PERCENT = (80, 95, 100)
MAIL, HOOK = Way("mail", "", KINDS), Way("operators", "chat#1", OPERATORS_KINDS)
APP, OTHER = Way("webhook", "app#1", ("crossing",)), Way("webhook", "other#2", ("exhausted",))


@pytest.fixture
async def deliveries(pool: Pool, ledger_url: str) -> AsyncIterator[PostgresDeliveries]:
    opened = PostgresDeliveries(pool, ledger_url)
    yield opened
    opened.unlock()


async def uses(pool: Pool, tier: str, tokens: int) -> None:
    await pool.execute(
        "INSERT INTO tier_usage (tier, tier_period, shard, epoch, settled_tokens) "
        "VALUES ($1, instant($2), 0, 1, $3) ON CONFLICT (tier, tier_period, shard, epoch) "
        "DO UPDATE SET settled_tokens = $3",
        *(tier, NOVEMBER_MS, tokens),
    )


async def noted(pool: Pool) -> list[tuple[str, int, str]]:
    found = await pool.fetch(
        "SELECT kind, threshold, about FROM notifications WHERE user_id = '' "
        "ORDER BY notification_id"
    )
    return [tuple(record) for record in found]


async def test_a_cap_that_is_near_is_told_at_each_threshold_once(
    deliveries: PostgresDeliveries, pool: Pool
) -> None:
    told = []
    for tokens in (799, 800, 810, 1000, 980, 999):  # a correction lowers it
        await uses(pool, "free", tokens)
        await deliveries.find([FREE, LITE], PERCENT)
        told.append(await noted(pool))
    near = [("tier_cap_near", percent, "free") for percent in (80, 100)]
    assert told == [[], near[:1], near[:1], near, near, near]
    await uses(pool, "lite", 960)
    await deliveries.find([FREE, LITE], PERCENT)
    assert await noted(pool) == [*near, ("tier_cap_near", 95, "lite")]


async def test_what_failed_for_good_is_told_once_a_day(
    deliveries: PostgresDeliveries, pool: Pool, directory: PostgresDirectory
) -> None:
    await directory.create_user("ann", "free", FIRST_UTC, "ann@example.org")
    await deliveries.find([], PERCENT)
    assert await noted(pool) == []
    for position in ("1-0", "2-0"):
        await pool.execute(
            "INSERT INTO ledger_dead (shard, stream_id, event_json, script_part, reason) "
            "VALUES (0, $1, '', '', 'no number')",
            position,
        )
        await deliveries.find([], PERCENT)
    await pool.execute(
        "INSERT INTO notifications (user_id, payer, period, kind, at) "
        "VALUES ('ann', 'ann', now(), 'exhausted', now())"
    )
    await deliveries.deal(10, [MAIL])
    delivery = await deliveries.take(MAIL, 60)
    assert delivery is not None
    await deliveries.end(delivery, "dead", "550 nobody")
    for _ in range(2):
        await deliveries.find([], PERCENT)
    assert await noted(pool) == [("dead_rows", 0, ""), ("dead_deliveries", 0, "")]


async def test_that_operators_could_not_be_told_so_is_no_news_for_them(
    deliveries: PostgresDeliveries, pool: Pool
) -> None:
    await PostgresNotices(pool).alarm(Alarm("dead_deliveries", NOVEMBER_MS, {"deliveries": 1}))
    await deliveries.deal(10, [HOOK])
    delivery = await deliveries.take(HOOK, 60)
    assert delivery is not None
    await deliveries.end(delivery, "dead", "answered 404")
    await deliveries.find([], PERCENT)
    assert len(await noted(pool)) == 1


async def test_an_alarm_is_noted_once_a_day_and_goes_to_operators_only(
    deliveries: PostgresDeliveries, pool: Pool
) -> None:
    notices = PostgresNotices(pool)
    for at_ms in (NOVEMBER_MS, NOVEMBER_MS + 5, NOVEMBER_MS + 86_400_000):
        await notices.alarm(Alarm("canary_failed", at_ms, {"why": "it went through"}))
    assert await noted(pool) == [("canary_failed", 0, "")] * 2
    await deliveries.deal(10, [MAIL, APP, HOOK])
    assert await deliveries.take(MAIL, 60) is None
    assert await deliveries.take(APP, 60) is None
    delivery = await deliveries.take(HOOK, 60)
    assert delivery is not None
    assert (delivery.identity, delivery.kind) == (OPERATORS, "canary_failed")
    assert delivery.facts == {"why": "it went through"}
    assert (delivery.address, delivery.is_wanted) == ("chat#1", True)


async def test_each_way_gets_its_own_kinds_and_no_user_turns_a_webhook_off(
    deliveries: PostgresDeliveries, pool: Pool, directory: PostgresDirectory
) -> None:
    await directory.create_user("ann", "free", FIRST_UTC, "ann@example.org")
    await directory.create_user("mute", "free", FIRST_UTC, None)
    await PostgresNotices(pool).wish("ann", {("crossing", "email"): False})
    for user_id in ("ann", "mute"):
        await pool.execute(
            "INSERT INTO notifications (user_id, payer, period, kind, threshold, at) "
            "VALUES ($1, $1, instant($2), 'crossing', 80, now())",
            *(user_id, NOVEMBER_MS),
        )
    await deliveries.deal(10, [MAIL, APP, OTHER, HOOK])
    assert [await deliveries.take(way, 60) for way in (MAIL, OTHER, HOOK)] == [None] * 3
    taken = [await deliveries.take(APP, 60) for _ in range(3)]
    users = [each and (each.identity.user_id, each.address, each.is_wanted) for each in taken]
    assert users == [("ann", "app#1", True), ("mute", "app#1", True), None]


async def test_what_no_way_has_taken_for_days_is_dropped(
    deliveries: PostgresDeliveries, pool: Pool
) -> None:
    await PostgresNotices(pool).alarm(Alarm("canary_failed", NOVEMBER_MS, {}))
    await deliveries.deal(10, [HOOK, Way("operators", "gone#2", OPERATORS_KINDS)])
    await pool.execute(
        "UPDATE deliveries SET next_at = now() - interval '73 hours' WHERE address = 'gone#2'"
    )
    await deliveries.find([], PERCENT)
    found = await pool.fetch("SELECT address, state FROM deliveries ORDER BY address")
    assert [tuple(row) for row in found] == [("chat#1", "pending"), ("gone#2", "dropped")]
