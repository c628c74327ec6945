"""Booking: exactly once, whatever is repeated, rejected or interrupted."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from msgspec.structs import replace

from gateway.adapters.postgres.booking import dead_entry
from gateway.adapters.postgres.connection import Pool, Timeouts, open_pool
from gateway.adapters.postgres.ledger import PostgresLedger
from gateway.core.event import LedgerRow, ledger_row
from gateway.core.rid import derived_rid
from gateway.ports.ledger import BookReply, Cursor, DeadEntry, LedgerUnavailable
from tests.contract.ledger_samples import (
    NOVEMBER_MS,
    OCTOBER_MS,
    no_doubles,
    sample_row,
    until,
)


async def totals(pool: Pool) -> tuple[int, int]:
    """Tokens charged: by the ledger's rows, by the sums kept beside them."""
    by_rows = await pool.fetchval("SELECT coalesce(sum(charged_tokens), 0)::bigint FROM ledger")
    kept = "SELECT coalesce(sum(settled_tokens), 0)::bigint FROM period_usage"
    return by_rows, await pool.fetchval(kept)


async def test_a_row_stands_in_the_ledger_as_it_was_given(
    pool: Pool, ledger: PostgresLedger
) -> None:
    row = sample_row(
        "1793500000123-7", stream=True, tag="quiz", cached_tokens=3, reasoning_tokens=4,
        service_tier="flex", sdk_retry=1, upstream_id="chatcmpl-1", client_id="c-9",
        from_packs=5, overdraft_tokens=6, shard=3, epoch=2, account_seq=99,
        pack_split=(("p-1", 3), ("p-2", 1), ("p-1", 1)),
    )  # fmt: skip
    await ledger.book([row], [], no_doubles)
    stored = dict((await pool.fetch("SELECT * FROM ledger"))[0])
    assert str(stored.pop("event_id")) == row.event_id
    assert stored.pop("period") == datetime(2026, 11, 1, tzinfo=UTC)
    assert stored.pop("at") == datetime(2026, 11, 1, 2, 26, 40, 123_000, tzinfo=UTC)
    assert json.loads(stored.pop("pack_split")) == {"p-1": 4, "p-2": 1}
    for name, value in stored.items():
        given: Any = getattr(row, name, getattr(row.event, name, None))
        assert value == given, name


async def test_second_booking_changes_nothing(pool: Pool, ledger: PostgresLedger) -> None:
    rows = [sample_row("1-0"), sample_row("1-1", payer="bob")]
    assert await ledger.book(rows, [], no_doubles) == BookReply(booked=rows, repeated=0, dead=0)
    before = await pool.fetch("SELECT * FROM period_usage ORDER BY payer")
    assert await ledger.book(rows, [], no_doubles) == BookReply(booked=[], repeated=2, dead=0)
    assert await pool.fetch("SELECT * FROM period_usage ORDER BY payer") == before
    assert await ledger.cursors() == {0: Cursor(1, "1-1", "")}


async def test_sums_follow_from_new_rows_only(pool: Pool, ledger: PostgresLedger) -> None:
    old, new = sample_row("1-0"), sample_row("2-0", charged_tokens=5, cost_nano_gbp=9)
    await ledger.book([old], [], no_doubles)
    reply = await ledger.book([old, new, new], [], no_doubles)
    assert (reply.booked, reply.repeated) == ([new], 2)
    kept = await pool.fetchrow("SELECT * FROM period_usage")
    assert kept is not None
    assert (kept["settled_tokens"], kept["cost_nano_gbp"], kept["rows"]) == (35, 709, 2)


async def test_a_correction_is_summed_beside_what_it_corrects(
    pool: Pool, ledger: PostgresLedger
) -> None:
    expired = sample_row("1-0", quality="estimated", outcome="expired")
    late = replace(
        expired, event_id=derived_rid(expired.event_id, "late"), kind="correction",
        corrects=expired.event_id, charged_tokens=-12, stream_id="2-0",
    )  # fmt: skip
    await ledger.book([expired, late], [], no_doubles)
    assert await totals(pool) == (18, 18)


async def test_the_cursor_goes_to_the_highest_id_by_number(ledger: PostgresLedger) -> None:
    given = [("9-0", "10-0"), ("10-0", "9-0"), ("5-9", "5-10"), ("1793500000000-0", "99999999-5")]
    for shard, ids in enumerate(given):
        await ledger.book([sample_row(stream_id, shard=shard) for stream_id in ids], [], no_doubles)
    cursors = await ledger.cursors()
    assert [cursors[shard].stream_id for shard in range(4)] == [
        "10-0",
        "10-0",
        "5-10",
        "1793500000000-0",
    ]


async def test_the_cursor_never_goes_back(ledger: PostgresLedger) -> None:
    await ledger.book([sample_row("10-0", epoch=2), sample_row("3-0", shard=5)], [], no_doubles)
    await ledger.book([sample_row("9-9", epoch=1)], [], no_doubles)
    assert await ledger.cursors() == {0: Cursor(2, "10-0", ""), 5: Cursor(1, "3-0", "")}


async def test_a_noted_server_stands_at_every_shard_and_moves_no_cursor(
    ledger: PostgresLedger,
) -> None:
    await ledger.book([sample_row("9-0", shard=1, epoch=3)], [], no_doubles)
    await ledger.note_server(3, "run-1")
    unknown = Cursor(0, "0-0", "run-1")
    assert await ledger.cursors() == {0: unknown, 1: Cursor(3, "9-0", "run-1"), 2: unknown}
    await ledger.book([sample_row("5-0", epoch=2)], [], no_doubles)
    await ledger.note_server(3, "run-2")
    noted = await ledger.cursors()
    assert noted[0] == Cursor(2, "5-0", "run-2")
    assert noted[1] == Cursor(3, "9-0", "run-2")
    assert await ledger.raise_epoch(2, 0) == (1, "0-0")


async def test_dead_entries_are_kept_raw_and_pass_the_cursor(
    pool: Pool, ledger: PostgresLedger
) -> None:
    dead = DeadEntry(0, "4-0", b"\xff\x00 not json", b"1 2", "no \x00 event \ud800" + "x" * 9999)
    row = sample_row("3-0")
    assert await ledger.book([row], [dead], no_doubles) == BookReply(
        booked=[row], repeated=0, dead=1
    )
    assert await ledger.cursors() == {0: Cursor(1, "4-0", "")}
    stored = (await pool.fetch("SELECT * FROM ledger_dead"))[0]
    assert (stored["event_json"], stored["script_part"]) == (dead.event_json, dead.script_part)
    assert stored["reason"].startswith("no \\0 event \\ud800x")
    assert (await ledger.book([], [dead], no_doubles)).dead == 0
    reused_id = dataclasses.replace(dead, event_json=b"another")
    assert (await ledger.book([], [reused_id], no_doubles)).dead == 1


BAD_ROWS: dict[str, dict[str, Any]] = {
    "invalid byte sequence": {"tag": "a\0b"},
    "int16": {"status": 70_000},
    "int32": {"epoch": 2**40},
    "int64": {"prompt_tokens": 2**63},
    "bigint out of range": {"charged_tokens": 2**63 - 1},  # alone it fits, its sum does not
    "ledger_kind_check": {"kind": "gift"},
    "ledger_outcome_check": {"outcome": "lost"},
    "invalid UUID": {"event_id": "not-a-uuid"},
    "index row": {"payer": "".join(chr(33 + n * n % 9000) for n in range(9000))},
    "out of range": {"period_ms": 10**18},
    "cannot be converted to text": {"pack_split": (("a\0b", 1),)},
    "out of range for type bigint": {"pack_split": (("p-1", 2**70),)},
}


async def test_bad_rows_are_buried_alone_each_with_its_reason(
    pool: Pool, ledger: PostgresLedger
) -> None:
    await pool.execute("INSERT INTO packs VALUES ('p-1', 'ann', 9, 0, now(), 'ref-1')")
    rows = [sample_row(f"1-{n}") for n in range(100)]
    for n, change in enumerate(BAD_ROWS.values()):
        rows[7 + 8 * n] = sample_row(f"1-{7 + 8 * n}", **change)
    rows[99] = sample_row("1-99", kind="gift", epoch=7)
    good = [row for n, row in enumerate(rows) if n % 8 != 7 and n != 99]
    assert await ledger.book(rows, [], no_doubles) == BookReply(booked=good, repeated=0, dead=13)
    assert await ledger.cursors() == {0: Cursor(1, "1-99", "")}
    assert await totals(pool) == (87 * 30, 87 * 30)
    reasons = await pool.fetch(
        "SELECT reason FROM ledger_dead ORDER BY stream_position(stream_id) LIMIT 12"
    )
    for expected, record in zip(BAD_ROWS, reasons, strict=True):
        assert expected in record["reason"]
    assert await ledger.book(rows, [], no_doubles) == BookReply(booked=[], repeated=87, dead=0)


async def test_a_batch_of_nothing_but_bad_rows_passes(pool: Pool, ledger: PostgresLedger) -> None:
    rows = [sample_row(f"1-{n}", status=70_000) for n in range(5)]
    assert await ledger.book(rows, [], no_doubles) == BookReply(booked=[], repeated=0, dead=5)
    assert await ledger.cursors() == {0: Cursor(0, "1-4", "")}
    assert await totals(pool) == (0, 0)


def test_a_buried_row_can_be_read_again() -> None:
    row = sample_row(
        "7-1", charged_tokens=11, from_packs=2, overdraft_tokens=3, epoch=4,
        pack_split=(("p-1", 1), ("p-2", 1)), tier_period_start_ms=OCTOBER_MS, crossed_percent=80,
    )  # fmt: skip
    late = replace(
        row, event_id=derived_rid(row.event_id, "late"), kind="correction",
        corrects=row.event_id, charged_tokens=4, cost_nano_gbp=-8,
    )  # fmt: skip
    for buried in (row, late, sample_row("7-2")):
        dead = dead_entry(buried, "because")
        again = ledger_row(dead.shard, dead.stream_id, dead.event_json, dead.script_part)
        assert again == buried


async def test_two_drainers_at_once_book_each_row_once(
    pool: Pool, ledger: PostgresLedger, ledger_url: str
) -> None:
    rows = [sample_row(f"{n}-0", payer=f"user{n % 7}") for n in range(1, 201)]
    batches = [rows[n : n + 20] for n in range(0, 200, 20)]
    other = PostgresLedger(pool, ledger_url)
    forwards = [ledger.book(batch, [], no_doubles) for batch in batches]
    backwards = [other.book(batch[::-1], [], no_doubles) for batch in batches]
    replies = await asyncio.gather(*forwards, *backwards)
    assert sum(len(reply.booked) for reply in replies) == 200
    assert sum(reply.repeated for reply in replies) == 200
    assert await totals(pool) == (6000, 6000)
    assert await ledger.cursors() == {0: Cursor(1, "200-0", "")}


async def test_the_ledger_is_append_only_for_its_owner_too(
    pool: Pool, ledger: PostgresLedger
) -> None:
    await ledger.prepare_partitions(NOVEMBER_MS)
    await ledger.book([sample_row()], [], no_doubles)
    for change in (
        "UPDATE ledger SET charged_tokens = 0",
        "DELETE FROM ledger",
        "TRUNCATE ledger",
        "DELETE FROM ledger_2026_11",
        "TRUNCATE ledger_2026_11",
        "TRUNCATE ledger_default",
    ):
        with pytest.raises(asyncpg.RestrictViolationError, match="never edited"):
            await pool.execute(change)
    assert await totals(pool) == (30, 30)


@pytest.fixture
async def table_lock(ledger_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """Holds `ledger` so that booking must wait; ends with its connection."""
    holder = await asyncpg.connect(ledger_url)
    await holder.execute("BEGIN; LOCK TABLE ledger IN ACCESS EXCLUSIVE MODE")
    yield holder
    holder.terminate()


async def test_a_lock_is_given_up_in_time_and_nothing_changed(
    ledger_url: str, pool: Pool, table_lock: asyncpg.Connection[asyncpg.Record]
) -> None:
    impatient = await open_pool(ledger_url, Timeouts(lock_ms=50))
    ledger, row = PostgresLedger(impatient, ledger_url), sample_row("1-0")
    try:
        with pytest.raises(LedgerUnavailable, match="lock timeout"):
            await ledger.book([row], [], no_doubles)
        await table_lock.execute("COMMIT")
        assert await totals(pool) == (0, 0)
        assert await ledger.cursors() == {}
        assert (await ledger.book([row], [], no_doubles)).booked == [row]
    finally:
        impatient.terminate()


async def test_a_connection_killed_while_booking_loses_and_doubles_nothing(
    pool: Pool, ledger: PostgresLedger, table_lock: asyncpg.Connection[asyncpg.Record]
) -> None:
    row = sample_row("1-0")
    booking = asyncio.ensure_future(ledger.book([row], [], no_doubles))
    waiting = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    await until(lambda: pool.fetchval(waiting))
    with pytest.raises(LedgerUnavailable):
        await booking
    await table_lock.execute("COMMIT")
    assert (await ledger.book([row], [], no_doubles)).booked == [row]
    assert await totals(pool) == (30, 30)


async def test_idle_connections_that_the_server_dropped_are_replaced(
    ledger_url: str, ledger: PostgresLedger
) -> None:
    killer = await asyncpg.connect(ledger_url)
    await killer.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await killer.close()
    row = sample_row()
    try:
        reply = await ledger.book([row], [], no_doubles)
    except LedgerUnavailable:  # the loss was noticed only by writing; a repetition is the rule
        reply = await ledger.book([row], [], no_doubles)
    assert reply.booked == [row]


async def test_a_server_that_has_said_goodbye_is_away_and_no_fault_of_ours(
    pool: Pool, ledger: PostgresLedger
) -> None:
    """Its word is read, the end of the connection not yet: the driver calls that its own fault."""
    said = b"SFATAL\0C57P01\0Mterminating connection due to administrator command\0\0"
    goodbye = b"E" + (len(said) + 4).to_bytes(4, "big") + said
    await ledger.alive_gateways(None)
    inside: Any = pool
    for holder in inside._holders:
        if holder._con is not None:
            holder._con._protocol.data_received(goodbye)
    with pytest.raises(LedgerUnavailable):
        await ledger.alive_gateways(None)


async def test_money_is_shown_in_pounds_exactly(pool: Pool, ledger: PostgresLedger) -> None:
    await ledger.book([sample_row("1-0", cost_nano_gbp=1), sample_row("2-0")], [], no_doubles)
    shown = await pool.fetch("SELECT cost_gbp::text FROM ledger_gbp ORDER BY ledger_gbp.cost_gbp")
    assert [row["cost_gbp"] for row in shown] == ["0.000000001", "0.000000700"]
    model = await pool.fetchrow("SELECT model, rows, charged_tokens, cost_gbp FROM usage_by_model")
    assert model is not None
    assert tuple(model) == ("gpt-4o-mini", 2, 60, Decimal("0.000000701"))


async def partitions_of(pool: Pool) -> set[str]:
    children = (
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits"
        " WHERE inhparent = 'ledger'::regclass"
    )
    return {row["name"] for row in await pool.fetch(children)}


async def test_partitions_are_made_ahead_by_two_processes_at_once(
    pool: Pool, ledger: PostgresLedger
) -> None:
    may_2031 = int(datetime(2031, 5, 31, 23, 59, tzinfo=UTC).timestamp() * 1000)
    before = await partitions_of(pool)
    await asyncio.gather(*(ledger.prepare_partitions(may_2031) for _ in range(4)))
    made = await partitions_of(pool) - before
    assert made == {f"ledger_2031_0{month}" for month in (4, 5, 6, 7, 8)}


async def test_a_month_nobody_prepared_is_caught_by_the_net(
    pool: Pool, ledger: PostgresLedger
) -> None:
    far_ms = int(datetime(2035, 2, 10, tzinfo=UTC).timestamp() * 1000)
    await ledger.book([sample_row("1-0", period_ms=far_ms)], [], no_doubles)
    assert await pool.fetchval("SELECT count(*) FROM ledger_default") == 1
    await ledger.prepare_partitions(far_ms)
    made = await partitions_of(pool)
    assert "ledger_2035_03" in made
    assert "ledger_2035_02" not in made
    await ledger.book([sample_row("2-0", period_ms=far_ms)], [], no_doubles)
    assert await totals(pool) == (60, 60)


async def test_rows_of_one_batch_may_lie_in_several_periods(
    pool: Pool, ledger: PostgresLedger
) -> None:
    def in_period(stream_id: str, period_ms: int) -> LedgerRow:
        return sample_row(stream_id, period_ms=period_ms)

    await ledger.book([in_period("1-0", OCTOBER_MS), in_period("2-0", NOVEMBER_MS)], [], no_doubles)
    kept = await pool.fetch("SELECT period, settled_tokens FROM period_usage ORDER BY period")
    assert [(row["period"].month, row["settled_tokens"]) for row in kept] == [(10, 30), (11, 30)]
