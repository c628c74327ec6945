"""Deliveries on Postgres: dealt out once, taken by one at a time, not to who does not want them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.adapters.postgres.connection import Pool
from gateway.adapters.postgres.deliveries import PostgresDeliveries
from gateway.adapters.postgres.directory import PostgresDirectory
from gateway.adapters.postgres.notices import PostgresNotices
from gateway.core.notices import KINDS
from gateway.ports.deliveries import Way
from tests.contract.ledger_samples import FIRST_UTC, NOVEMBER_MS, until

_NEWS = """
INSERT INTO notifications (user_id, payer, period, kind, threshold, at)
VALUES ($1, $1, instant($2), $3, $4, now())
"""
_PACK = """
INSERT INTO packs (pack_id, payer, granted_tokens, spent_tokens, ends_at, payment_ref, created_at)
VALUES ($1, 'ann', 100, $2, now() + make_interval(hours => $3), $1,
        now() - make_interval(hours => $4))
"""
DAY = 24
MAIL = Way("mail", "", KINDS)


@pytest.fixture
async def deliveries(pool: Pool, ledger_url: str) -> AsyncIterator[PostgresDeliveries]:
    opened = PostgresDeliveries(pool, ledger_url)
    yield opened
    opened.unlock()


@pytest.fixture
async def ann(directory: PostgresDirectory) -> str:
    await directory.create_user("ann", "free", FIRST_UTC, "ann@example.org")
    return "ann"


async def news(pool: Pool, user_id: str, kind: str = "crossing", threshold: int = 80) -> None:
    await pool.execute(_NEWS, user_id, NOVEMBER_MS, kind, threshold)


async def test_each_is_dealt_once_and_taken_by_one_of_many(
    deliveries: PostgresDeliveries, pool: Pool, ann: str
) -> None:
    await news(pool, ann)
    await asyncio.gather(*(deliveries.deal(10, [MAIL]) for _ in range(4)))
    taken = await asyncio.gather(*(deliveries.take(MAIL, 60) for _ in range(4)))
    (delivery,) = [each for each in taken if each is not None]
    assert (delivery.address, delivery.kind) == ("ann@example.org", "crossing")
    assert delivery.threshold == 80
    assert (delivery.attempts, delivery.is_wanted, delivery.period_ms) == (1, True, NOVEMBER_MS)
    assert delivery.identity.tier == "free"
    await deliveries.deal(10, [MAIL])
    assert await deliveries.take(MAIL, 60) is None


async def test_what_was_taken_and_not_ended_comes_again(
    deliveries: PostgresDeliveries, pool: Pool, ann: str
) -> None:
    await news(pool, ann)
    await deliveries.deal(10, [MAIL])
    first = await deliveries.take(MAIL, 0)  # its process was killed
    second = await deliveries.take(MAIL, 0)
    assert first is not None
    assert second is not None
    assert (second.notification_id, second.attempts) == (first.notification_id, 2)
    await deliveries.put_off(second, 60, "450 busy")
    assert await deliveries.take(MAIL, 0) is None
    await deliveries.end(second, "sent", None)
    row = await pool.fetchrow("SELECT state, sent_at IS NOT NULL AS is_sent FROM deliveries")
    assert row is not None
    assert tuple(row) == ("sent", True)


async def test_figures_are_the_ledgers(
    deliveries: PostgresDeliveries, pool: Pool, ann: str
) -> None:
    await pool.execute(
        "INSERT INTO period_usage (payer, period, settled_tokens, from_packs, adjusted_tokens) "
        "VALUES ('ann', instant($1), 900, 100, -50)",
        NOVEMBER_MS,
    )
    await pool.execute(_PACK, "p", 40, 9 * DAY, DAY)
    await news(pool, ann)
    await deliveries.deal(10, [MAIL])
    delivery = await deliveries.take(MAIL, 60)
    assert delivery is not None
    assert (delivery.used_tokens, delivery.pack_tokens) == (750, 60)


async def test_who_does_not_want_a_kind_or_has_no_address_is_left_alone(
    deliveries: PostgresDeliveries, pool: Pool, ann: str, directory: PostgresDirectory
) -> None:
    await directory.create_user("mute", "free", FIRST_UTC, None)
    await PostgresNotices(pool).wish(ann, {("crossing", "email"): False})
    for each in (ann, "mute"):
        await news(pool, each)
    await news(pool, ann, "exhausted", 0)
    await deliveries.deal(10, [MAIL])
    found = await pool.fetch(
        "SELECT kind FROM deliveries JOIN notifications USING (notification_id)"
    )
    assert [record["kind"] for record in found] == ["exhausted"]
    await PostgresNotices(pool).wish(ann, {("exhausted", "email"): False})
    delivery = await deliveries.take(MAIL, 60)
    assert delivery is not None
    assert not delivery.is_wanted


@pytest.mark.parametrize(
    ("pack", "kinds"),
    [
        ((10, 300 * DAY, 1), {"payment_credited"}),
        ((10, 300 * DAY, 3 * DAY), set()),
        ((80, 300 * DAY, 3 * DAY), {"pack_low"}),
        ((100, 300 * DAY, 1), set()),  # nothing is left
        ((10, 6 * DAY, 30 * DAY), {"pack_ends"}),
        ((10, 3 * DAY, 3 * DAY), set()),  # it never had seven days
    ],
)
async def test_packs_are_news_once(
    deliveries: PostgresDeliveries, pool: Pool, pack: tuple[int, int, int], kinds: set[str]
) -> None:
    used, ends, ago = pack
    await pool.execute(_PACK, "p", used, ends, ago)
    for _ in range(2):
        await deliveries.find([], [80])
    found = [record["kind"] for record in await pool.fetch("SELECT kind FROM notifications")]
    assert (len(found), set(found)) == (len(kinds), kinds)


async def test_one_sends_at_a_time(
    deliveries: PostgresDeliveries, pool: Pool, ledger_url: str
) -> None:
    other = PostgresDeliveries(pool, ledger_url)
    assert await deliveries.lock()
    assert await deliveries.lock()
    assert not await other.lock()
    deliveries.unlock()
    await until(other.lock)
    other.unlock()
