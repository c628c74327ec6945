"""Closing periods: one entry each, an hour after the end, with the figures of that moment."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

import asyncpg
import pytest
from msgspec.structs import replace

from gateway.adapters.postgres.closing import closing_id
from gateway.adapters.postgres.connection import Pool
from gateway.adapters.postgres.directory import PostgresDirectory
from gateway.adapters.postgres.ledger import PostgresLedger
from gateway.core.event import LedgerRow
from gateway.core.period import Calendar
from gateway.core.rid import make_rid
from gateway.ports.directory import Adjustment
from tests.contract.ledger_samples import (
    FIRST_UTC,
    NOVEMBER_MS,
    OCTOBER_MS,
    no_doubles,
    sample_row,
    until,
)

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
CLOSABLE_MS = int(datetime(2026, 12, 1, 1, tzinfo=UTC).timestamp() * 1000)


async def entries(pool: Pool) -> list[tuple[str, int, dict[str, int]]]:
    """Payer, period and figures of what was closed."""
    found = await pool.fetch(
        "SELECT payer, epoch_ms(period), closing FROM ledger WHERE kind = 'period_close'"
        " ORDER BY period, payer"
    )
    return [(payer, period_ms, json.loads(figures)) for payer, period_ms, figures in found]


async def open_periods(pool: Pool) -> int:
    found: int = await pool.fetchval("SELECT count(*) FROM period_usage WHERE closed_at IS NULL")
    return found


async def test_an_ended_period_is_closed_with_its_figures(
    pool: Pool, ledger: PostgresLedger, directory: PostgresDirectory
) -> None:
    await directory.create_user("ann", "full", FIRST_UTC)
    gift = Adjustment(make_rid(1, b"0" * 10), "ann", NOVEMBER_MS, -7, "sorry", "sue")
    await directory.adjust(gift)
    member = sample_row("2-0", user_id="bob", from_packs=4, pack_split=(("p-1", 4),))
    await ledger.book([sample_row("1-0"), member], [], no_doubles)
    assert await ledger.close_periods(CLOSABLE_MS, 10) == 1
    figures = {
        "settled_tokens": 60, "from_packs": 4, "adjusted_tokens": -7, "cost_nano_gbp": 1400,
        "rows": 3,
    }  # fmt: skip
    assert await entries(pool) == [("ann", NOVEMBER_MS, figures)]
    entry = await pool.fetchrow(
        "SELECT *, epoch_ms(at) AS at_ms FROM ledger WHERE kind = 'period_close'"
    )
    assert entry is not None
    assert (entry["charged_tokens"], entry["cost_nano_gbp"], entry["from_packs"]) == (0, 0, 0)
    shown = ("user_id", "tier", "quality", "outcome", "at_ms")
    assert [entry[name] for name in shown] == ["ann", "full", "measured", "recorded", CLOSABLE_MS]
    closed_at = await pool.fetchval("SELECT epoch_ms(closed_at) FROM period_usage")
    assert closed_at == CLOSABLE_MS


def test_the_id_of_a_closing_is_a_uuid_of_its_payer_and_period() -> None:
    made = {
        closing_id(payer, ms) for payer in ("ann", "bob") for ms in (OCTOBER_MS, NOVEMBER_MS)
    } | {closing_id("ann", NOVEMBER_MS)}
    assert len(made) == 4
    found = uuid.UUID(closing_id("ann", NOVEMBER_MS))
    assert (found.version, found.variant) == (7, uuid.RFC_4122)
    assert found.int >> 80 == NOVEMBER_MS


async def test_a_period_is_closed_an_hour_after_its_end_by_the_payers_calendar(
    ledger: PostgresLedger, directory: PostgresDirectory
) -> None:
    tokyo = Calendar(31, "Asia/Tokyo")
    period = tokyo.period_at(NOVEMBER_MS)
    await directory.create_user("ann", "full", tokyo)
    await ledger.book([sample_row("1-0", period_ms=period.start_ms)], [], no_doubles)
    assert await ledger.close_periods(period.end_ms + HOUR_MS - 1, 10) == 0
    assert await ledger.close_periods(period.end_ms + HOUR_MS, 10) == 1


async def test_a_short_first_period_of_a_changed_calendar_is_closed_too(
    pool: Pool, ledger: PostgresLedger, directory: PostgresDirectory
) -> None:
    changed = FIRST_UTC.changed(4, "UTC", OCTOBER_MS)
    short = changed.period_at(NOVEMBER_MS)
    assert (short.start_ms, short.end_ms) == (NOVEMBER_MS, NOVEMBER_MS + 3 * DAY_MS)
    await directory.create_user("ann", "full", changed)
    rows = [
        sample_row("1-0", period_ms=OCTOBER_MS),
        sample_row("2-0", period_ms=short.start_ms),
        sample_row("3-0", period_ms=short.end_ms),
    ]
    await ledger.book(rows, [], no_doubles)
    assert await ledger.close_periods(short.end_ms + HOUR_MS - 1, 10) == 1
    assert await ledger.close_periods(short.end_ms + HOUR_MS, 10) == 1
    assert [start for _, start, _ in await entries(pool)] == [OCTOBER_MS, NOVEMBER_MS]
    assert await open_periods(pool) == 1


async def test_a_closed_period_stays_closed_under_one_id(
    pool: Pool, ledger: PostgresLedger, directory: PostgresDirectory
) -> None:
    await directory.create_user("ann", "full", FIRST_UTC)
    await ledger.book([sample_row("1-0")], [], no_doubles)
    assert await ledger.close_periods(CLOSABLE_MS, 10) == 1
    assert await ledger.close_periods(CLOSABLE_MS, 10) == 0
    await pool.execute("UPDATE period_usage SET closed_at = NULL")  # an old copy was restored
    assert await ledger.close_periods(CLOSABLE_MS, 10) == 0
    assert await open_periods(pool) == 0
    assert len(await entries(pool)) == 1


async def test_many_processes_at_once_close_each_period_once(
    pool: Pool, ledger: PostgresLedger, directory: PostgresDirectory, ledger_url: str
) -> None:
    rows = []
    for n in range(40):
        await directory.create_user(f"user{n}", "full", FIRST_UTC)
        rows.append(sample_row(f"{n + 1}-0", payer=f"user{n}", user_id=f"user{n}"))
    await ledger.book(rows, [], no_doubles)
    other = await asyncpg.connect(ledger_url)
    await other.execute("BEGIN; SELECT FROM period_usage WHERE payer = 'user0' FOR UPDATE")
    closing = [
        asyncio.ensure_future(PostgresLedger(pool, ledger_url).close_periods(CLOSABLE_MS + n, 40))
        for n in range(4)
    ]
    waiting = "SELECT count(*) = 4 FROM pg_locks WHERE NOT granted"
    await until(lambda: other.fetchval(waiting))  # each has found every period open
    await other.execute("COMMIT")
    await other.close()
    assert sorted(await asyncio.gather(*closing)) == [0, 0, 0, 40]
    assert len(await entries(pool)) == 40
    closed_when_booked = (
        "SELECT count(*) FROM ledger JOIN period_usage USING (payer, period)"
        " WHERE kind = 'period_close' AND closed_at = at"
    )
    assert await pool.fetchval(closed_when_booked) == 40


async def test_at_most_so_many_are_closed_the_oldest_first(
    pool: Pool, ledger: PostgresLedger, directory: PostgresDirectory
) -> None:
    """Periods that still run are older than 27 days as well; they keep no other one open."""
    await directory.create_user("ann", "full", FIRST_UTC)
    await directory.create_user("bob", "full", Calendar(2, "UTC"))
    second_ms = OCTOBER_MS + DAY_MS
    rows = [
        sample_row("1-0", period_ms=NOVEMBER_MS),
        sample_row("2-0", period_ms=OCTOBER_MS),
        sample_row("3-0", payer="bob", user_id="bob", period_ms=second_ms),
        sample_row("4-0", payer="bob", user_id="bob", period_ms=NOVEMBER_MS + DAY_MS),
    ]
    await ledger.book(rows, [], no_doubles)
    assert await ledger.close_periods(CLOSABLE_MS, 0) == 0
    assert await ledger.close_periods(CLOSABLE_MS, 2) == 2
    assert [start for _, start, _ in await entries(pool)] == [OCTOBER_MS, second_ms]
    assert await ledger.close_periods(CLOSABLE_MS, 2) == 1
    assert await ledger.close_periods(CLOSABLE_MS, 2) == 0
    assert await open_periods(pool) == 1


async def test_what_comes_after_the_close_counts_and_the_close_stays(
    pool: Pool, ledger: PostgresLedger, directory: PostgresDirectory
) -> None:
    await directory.create_user("ann", "full", FIRST_UTC)
    await ledger.book([sample_row("1-0")], [], no_doubles)
    await ledger.close_periods(CLOSABLE_MS, 10)
    late = sample_row("2-0", kind="correction", charged_tokens=-12, cost_nano_gbp=-200)
    await ledger.book([late, sample_row("3-0")], [], no_doubles)
    await directory.adjust(Adjustment(make_rid(1, b"0" * 10), "ann", NOVEMBER_MS, 5, "r", "sue"))
    assert await ledger.close_periods(CLOSABLE_MS + DAY_MS, 10) == 0
    ((_, _, figures),) = await entries(pool)
    assert (figures["settled_tokens"], figures["rows"]) == (30, 1)
    kept = await pool.fetchrow("SELECT settled_tokens, adjusted_tokens, rows FROM period_usage")
    assert kept is not None
    assert tuple(kept) == (48, 5, 4)
    over_all_kinds = "SELECT sum(charged_tokens)::bigint, sum(cost_nano_gbp)::bigint FROM ledger"
    assert tuple((await pool.fetch(over_all_kinds))[0]) == (53, 1200)


async def test_what_is_being_booked_is_waited_for(
    pool: Pool, ledger: PostgresLedger, directory: PostgresDirectory
) -> None:
    """The figures are those that hold under the lock, not those of an older snapshot."""
    await directory.create_user("ann", "full", FIRST_UTC)
    first = sample_row("1-0")
    await ledger.book([first], [], no_doubles)
    closings: list[asyncio.Future[int]] = []

    async def close_meanwhile(rows: Sequence[LedgerRow]) -> None:
        closings.append(asyncio.ensure_future(ledger.close_periods(CLOSABLE_MS, 10)))
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        await until(lambda: pool.fetchval(waiting))

    await ledger.book([replace(first, stream_id="2-0"), sample_row("3-0")], [], close_meanwhile)
    assert await closings[0] == 1
    ((_, _, figures),) = await entries(pool)
    assert (figures["settled_tokens"], figures["rows"]) == (60, 2)


async def test_who_cannot_be_closed_keeps_nobody_else_open(
    pool: Pool,
    ledger: PostgresLedger,
    directory: PostgresDirectory,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await directory.create_user("ann", "full", FIRST_UTC)
    await directory.create_user("bob", "full", Calendar(1, "Mars/Olympus"))
    rows = [
        sample_row(f"{n}-0", payer=payer, user_id=payer, period_ms=period_ms)
        for n, (payer, period_ms) in enumerate(
            [("bob", OCTOBER_MS), ("nobody", OCTOBER_MS), ("ann", NOVEMBER_MS), ("ann", -5_000)], 1
        )
    ]
    await ledger.book(rows, [], no_doubles)
    assert await ledger.close_periods(CLOSABLE_MS, 1) == 1
    assert [payer for payer, _, _ in await entries(pool)] == ["ann"]
    assert "cannot be closed: time zone 'Mars/Olympus'" in caplog.text
