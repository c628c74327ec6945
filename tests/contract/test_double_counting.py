"""What Redis counted twice is taken back before its second event is passed by."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from gateway.adapters.postgres.connection import Pool
from gateway.adapters.postgres.ledger import PostgresLedger
from gateway.adapters.postgres.statements import drain
from gateway.core.event import LedgerRow
from gateway.core.rid import derived_rid
from gateway.ports.ledger import BookReply, Cursor, DeadEntry, LedgerUnavailable
from tests.contract.ledger_samples import OCTOBER_MS, TakenBack, no_doubles, sample_row

FIRST = sample_row("5-0", pack_split=(("p-1", 4),), from_packs=4)


async def settled(pool: Pool) -> int:
    found = "SELECT coalesce(sum(settled_tokens), 0)::bigint FROM period_usage"
    total: int = await pool.fetchval(found)
    return total


@pytest.mark.parametrize(
    "second", [replace(FIRST, stream_id="6-0"), replace(FIRST, epoch=2)], ids=["id", "epoch"]
)
async def test_another_event_of_a_booked_id_is_taken_back(
    pool: Pool, ledger: PostgresLedger, second: LedgerRow
) -> None:
    await ledger.book([FIRST], [], no_doubles)
    taken_back, new = TakenBack(), sample_row("7-0")
    reply = await ledger.book([second, new], [], taken_back)
    assert reply == BookReply(booked=[new], repeated=1, dead=0)
    assert taken_back.calls == [[second]]
    assert await settled(pool) == 60
    assert await pool.fetchval("SELECT stream_id FROM ledger ORDER BY stream_id LIMIT 1") == "5-0"
    assert (await ledger.cursors())[0] == Cursor(second.epoch, "7-0", "")


async def test_of_two_events_of_one_id_in_a_batch_the_first_is_booked(
    pool: Pool, ledger: PostgresLedger
) -> None:
    taken_back = TakenBack()
    second, third = replace(FIRST, stream_id="6-0"), replace(FIRST, epoch=2)
    reply = await ledger.book([FIRST, second, FIRST, third], [], taken_back)
    assert reply == BookReply(booked=[FIRST], repeated=3, dead=0)
    assert taken_back.calls == [[second, third]]
    assert await settled(pool) == 30


async def test_what_is_only_handed_over_again_was_counted_once(ledger: PostgresLedger) -> None:
    late = replace(
        FIRST, event_id=derived_rid(FIRST.event_id, "late"), kind="correction",
        corrects=FIRST.event_id, stream_id="6-0",
    )  # fmt: skip
    next_month = replace(FIRST, period_ms=OCTOBER_MS, stream_id="7-0")
    rows = [FIRST, late, next_month]
    for again in range(3):
        reply = await ledger.book(rows, [], no_doubles)
        assert reply.repeated == (3 if again else 0)
    assert (await ledger.book([*rows, *rows], [], no_doubles)).repeated == 6


async def test_where_all_is_new_nothing_is_looked_up(
    ledger: PostgresLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "BOOKED_AS", "SELECT nothing_of_the_kind")
    bad = sample_row("8-0", status=70_000)
    await ledger.book([FIRST, sample_row("6-0"), bad], [], no_doubles)
    with pytest.raises(Exception, match="nothing_of_the_kind"):
        await ledger.book([FIRST], [], no_doubles)


async def test_doubles_are_found_beside_rows_that_are_rejected(
    pool: Pool, ledger: PostgresLedger
) -> None:
    await ledger.book([FIRST], [], no_doubles)
    rows = [sample_row(f"6-{n}") for n in range(20)]
    rows[3] = replace(FIRST, stream_id="6-3")
    rows[11] = sample_row("6-11", status=70_000)
    rows[12] = replace(rows[2], stream_id="6-12")
    taken_back = TakenBack()
    reply = await ledger.book(rows, [], taken_back)
    assert (len(reply.booked), reply.repeated, reply.dead) == (17, 2, 1)
    assert taken_back.calls == [[rows[3], rows[12]]]
    assert await settled(pool) == 18 * 30


class StoreAway(Exception):
    """What another part of the program may raise."""


TROUBLES = [StoreAway("away"), TimeoutError("late"), ValueError("odd"), KeyError("k")]


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: type(trouble).__name__)
async def test_what_cannot_be_taken_back_yet_keeps_the_whole_batch_out(
    pool: Pool, ledger: PostgresLedger, trouble: Exception
) -> None:
    await pool.execute("INSERT INTO packs VALUES ('p-1', 'ann', 9, 0, now(), 'ref-1')")
    await ledger.book([FIRST], [], no_doubles)
    trouble.__cause__ = OSError("the reason")
    failing, dead = TakenBack(trouble), DeadEntry(0, "8-0", b"{}", b"1", "why")
    rows = [replace(FIRST, stream_id="6-0"), sample_row("7-0", pack_split=(("p-1", 2),))]
    with pytest.raises(type(trouble)) as raised:
        await ledger.book(rows, [dead], failing)
    assert raised.value is trouble
    assert str(trouble.__cause__) == "the reason"
    assert await settled(pool) == 30
    assert await ledger.cursors() == {0: Cursor(1, "5-0", "")}
    assert await pool.fetchval("SELECT count(*) FROM ledger_dead") == 0
    assert await pool.fetchval("SELECT spent_tokens FROM packs") == 4
    taken_back = TakenBack()
    reply = await ledger.book(rows, [dead], taken_back)
    assert (reply.booked, reply.repeated, reply.dead) == ([rows[1]], 1, 1)
    assert taken_back.calls == failing.calls == [[rows[0]]]
    assert await pool.fetchval("SELECT spent_tokens FROM packs") == 6


async def test_a_booking_that_is_cancelled_meanwhile_changes_nothing(
    pool: Pool, ledger: PostgresLedger
) -> None:
    await ledger.book([FIRST], [], no_doubles)
    with pytest.raises(asyncio.CancelledError):
        await ledger.book(
            [replace(FIRST, stream_id="6-0"), sample_row("7-0")],
            [],
            TakenBack(asyncio.CancelledError()),
        )
    assert await settled(pool) == 30


async def test_what_is_taken_back_is_not_committed_yet_and_epochs_can_rise(
    pool: Pool, ledger: PostgresLedger, ledger_url: str
) -> None:
    """Redis may have to open a shard anew before it can take anything back."""
    await ledger.book([FIRST], [], no_doubles)
    seen: list[object] = []

    async def look(rows: Sequence[LedgerRow]) -> None:
        seen.append(await settled(pool))
        seen.append(await ledger.raise_epoch(0, 1))

    await ledger.book([replace(FIRST, stream_id="6-0"), sample_row("7-0")], [], look)
    assert seen == [30, (2, "5-0")]
    assert await settled(pool) == 60
    assert await ledger.cursors() == {0: Cursor(2, "7-0", "", raised_at="5-0")}


async def test_a_commit_that_fails_hands_everything_over_again(
    pool: Pool, ledger: PostgresLedger
) -> None:
    await ledger.book([FIRST], [], no_doubles)
    second, calls = replace(FIRST, stream_id="6-0"), []

    async def lose_the_server(rows: Sequence[LedgerRow]) -> None:
        calls.append(list(rows))
        await pool.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND state = 'idle in transaction'"
        )

    with pytest.raises(LedgerUnavailable):
        await ledger.book([second], [], lose_the_server)
    taken_back = TakenBack()
    await ledger.book([second], [], taken_back)
    assert calls == taken_back.calls == [[second]]
