"""What the ledger tells a person of a period: days, last charges, and that it is not waited for."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from gateway.adapters.postgres import history as adapter
from gateway.adapters.postgres.connection import Pool
from gateway.adapters.postgres.history import PostgresHistory
from gateway.adapters.postgres.ledger import PostgresLedger
from gateway.core.rid import make_rid
from gateway.ports.history import DayUse, HistoryAsk, HistoryUnavailable
from tests.contract.ledger_samples import NOVEMBER_MS, OCTOBER_MS, no_doubles, sample_row

HOUR_MS = 3_600_000
TEAM = HistoryAsk("team", None, NOVEMBER_MS, "Europe/London", 3)


async def book(ledger: PostgresLedger) -> None:
    """Five entries of a team, 23 hours apart, of two members; and some of others."""
    rows = []
    for number in range(5):
        at_ms = NOVEMBER_MS + number * 23 * HOUR_MS
        rid = make_rid(at_ms, number.to_bytes(10, "big"))
        user_id = ("ann", "bob")[number % 2]
        row = sample_row(f"{at_ms}-0", event_id=rid, payer="team", user_id=user_id,
                         period_ms=NOVEMBER_MS)  # fmt: skip
        rows.append(replace(row, charged_tokens=10**number))
    rows.append(sample_row("1-0", event_id=make_rid(1, b"o" * 10), period_ms=NOVEMBER_MS))
    rows.append(
        sample_row("2-0", event_id=make_rid(2, b"p" * 10), payer="team", period_ms=OCTOBER_MS)
    )
    await ledger.book(rows, [], no_doubles)


async def test_days_are_those_of_the_zone_and_the_newest_charges_come_first(
    pool: Pool, ledger: PostgresLedger
) -> None:
    await book(ledger)
    told = await PostgresHistory(pool).of_period(TEAM)
    assert list(told.days) == [
        DayUse("2026-11-01", 11),
        DayUse("2026-11-02", 100),
        DayUse("2026-11-03", 1_000),
        DayUse("2026-11-04", 10_000),
    ]
    assert [charge.charged_tokens for charge in told.charges] == [10_000, 1_000, 100]
    elsewhere = HistoryAsk("team", "bob", NOVEMBER_MS, "Pacific/Kiritimati", 9)
    told = await PostgresHistory(pool).of_period(elsewhere)
    assert list(told.days) == [DayUse("2026-11-02", 10), DayUse("2026-11-04", 1_000)]


async def test_who_waits_too_long_is_told_so(
    pool: Pool, ledger: PostgresLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "_WAIT_S", 0.2)
    told = PostgresHistory(pool)
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE ledger IN ACCESS EXCLUSIVE MODE")
        for _ in range(2):
            with pytest.raises(HistoryUnavailable, match="much to do"):
                await told.of_period(TEAM)
    async with asyncio.timeout(10):
        assert (await PostgresHistory(pool).of_period(TEAM)).charges == []


async def test_a_zone_that_postgres_does_not_know_is_no_failure(
    pool: Pool, ledger: PostgresLedger
) -> None:
    await book(ledger)
    with pytest.raises(HistoryUnavailable, match="does not answer"):
        await PostgresHistory(pool).of_period(
            HistoryAsk("team", None, NOVEMBER_MS, "Mars/Olympus", 3)
        )
