"""What hydration asks (sums up to a stream id, epochs) and the right to drain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest

from gateway.adapters.postgres import advisory_lock
from gateway.adapters.postgres.connection import TIMEOUTS, Pool
from gateway.adapters.postgres.directory import PostgresDirectory
from gateway.adapters.postgres.ledger import PostgresLedger
from gateway.core.quota.entitle import LedgerSums
from gateway.core.rid import make_rid
from gateway.ports.directory import Adjustment
from gateway.ports.ledger import Conflict, Watermark
from tests.contract.ledger_samples import (
    FIRST_UTC,
    NOVEMBER_MS,
    OCTOBER_MS,
    no_doubles,
    sample_row,
    until,
)


async def sums_of_ann(
    ledger: PostgresLedger, stream_id: str, epoch: int = 1, shard: int = 0
) -> LedgerSums | None:
    return await ledger.sums("ann", None, NOVEMBER_MS, Watermark(shard, epoch, stream_id))


def without_packs(settled_tokens: int, cost_nano_gbp: int) -> LedgerSums:
    """Of a payer whom the directory does not know."""
    return LedgerSums(settled_tokens, 0, 0, cost_nano_gbp, rev=0)


async def test_sums_wait_for_the_cursor(ledger: PostgresLedger) -> None:
    assert await sums_of_ann(ledger, "9-0") is None
    await ledger.book([sample_row("9-0")], [], no_doubles)
    assert await sums_of_ann(ledger, "10-0") is None
    assert await sums_of_ann(ledger, "9-0", shard=1) is None
    assert await sums_of_ann(ledger, "9-0", epoch=2) is None
    assert await sums_of_ann(ledger, "9-0") == without_packs(30, 700)


async def test_a_stream_never_used_is_reached_at_once(ledger: PostgresLedger) -> None:
    assert await sums_of_ann(ledger, "0-0") == without_packs(0, 0)


async def test_sums_stop_at_the_stream_id_by_number(ledger: PostgresLedger) -> None:
    """What came later is in Redis already: it was settled after the hydration began."""
    ids = ["9-0", "9-9", "9-10", "10-0"]
    await ledger.book([sample_row(stream_id) for stream_id in ids], [], no_doubles)
    for rows, stream_id in enumerate(ids, start=1):
        sums = await sums_of_ann(ledger, stream_id)
        assert sums == without_packs(30 * rows, 700 * rows), stream_id


async def test_older_epochs_count_wholly_and_newer_ones_not(ledger: PostgresLedger) -> None:
    await ledger.book([sample_row("90-0", epoch=1), sample_row("91-0", epoch=2)], [], no_doubles)
    await ledger.book([sample_row("99-0", epoch=3)], [], no_doubles)
    sums = await sums_of_ann(ledger, "50-0", epoch=2)
    assert sums == without_packs(30, 700)
    sums = await sums_of_ann(ledger, "99-0", epoch=3)
    assert sums == without_packs(90, 2100)


async def test_sums_are_of_one_payer_and_period_with_adjustments_and_revision(
    ledger: PostgresLedger, directory: PostgresDirectory
) -> None:
    await directory.create_user("ann", "free", FIRST_UTC)
    await directory.adjust(
        Adjustment(make_rid(1, b"0123456789"), "ann", NOVEMBER_MS, -8, "sorry", "sue")
    )
    await ledger.book(
        [
            sample_row("1-0"),
            sample_row("2-0", payer="bob"),
            sample_row("3-0", period_ms=OCTOBER_MS),
            sample_row(
                "4-0", kind="correction", charged_tokens=-5, cost_nano_gbp=-100, from_packs=-2
            ),
            sample_row("5-0", from_packs=7),
        ],
        [],
        no_doubles,
    )
    assert await sums_of_ann(ledger, "5-0") == LedgerSums(
        settled_tokens=55, from_packs=5, adjusted_tokens=-8, cost_nano_gbp=1300, rev=2
    )


async def test_an_epoch_is_raised_once_by_many(ledger: PostgresLedger) -> None:
    for seen in (0, 1, 5):
        raised = await asyncio.gather(*(ledger.raise_epoch(3, seen) for _ in range(8)))
        assert set(raised) == {(seen + 1, "0-0")}
    await ledger.book([sample_row("7-7", shard=3)], [], no_doubles)
    assert await ledger.raise_epoch(3, 5) == (6, "7-7")
    assert await ledger.raise_epoch(3, 6) == (7, "7-7")


async def test_an_epoch_is_never_lowered(ledger: PostgresLedger) -> None:
    await ledger.book([sample_row("7-7", epoch=9)], [], no_doubles)
    for seen in (0, 5, 8):
        assert await ledger.raise_epoch(0, seen) == (9, "7-7")


async def test_an_epoch_waits_for_the_raise_that_is_not_committed_yet(
    ledger: PostgresLedger, ledger_url: str
) -> None:
    """The answer is what holds, not what was committed when the question came."""
    await ledger.raise_epoch(0, 3)
    other = await asyncpg.connect(ledger_url)
    await other.execute("BEGIN; UPDATE shards SET epoch = 8, cursor = '5-5' WHERE shard = 0")
    asking = asyncio.ensure_future(ledger.raise_epoch(0, 4))
    await until(lambda: other.fetchval("SELECT true FROM pg_locks WHERE NOT granted"))
    await other.execute("COMMIT")
    assert await asking == (8, "5-5")
    await other.close()


async def test_a_shard_the_ledger_lost_goes_past_the_epoch_redis_had(
    ledger: PostgresLedger,
) -> None:
    assert await ledger.raise_epoch(0, 4) == (5, "0-0")


@pytest.fixture
async def second(pool: Pool, ledger_url: str) -> AsyncIterator[PostgresLedger]:
    other = PostgresLedger(pool, ledger_url)
    yield other
    other.unlock_shards()


async def become_drainer(ledger: PostgresLedger, shards: int = 16) -> None:
    """The server may need a moment to see that a connection is gone."""
    await until(lambda: ledger.lock_shards(shards))


async def test_there_is_one_drainer_until_it_lets_go(
    ledger: PostgresLedger, second: PostgresLedger
) -> None:
    assert ledger.lock_lost()
    assert await ledger.lock_shards(16)
    assert not ledger.lock_lost()
    assert not await second.lock_shards(16)
    assert second.lock_lost()
    assert await ledger.lock_shards(16)
    ledger.unlock_shards()
    assert ledger.lock_lost()
    await become_drainer(second)
    assert not await ledger.lock_shards(16)


async def test_to_ask_whether_the_lock_still_holds_writes_nothing(
    ledger: PostgresLedger, pool: Pool
) -> None:
    """It is asked with every batch of the drain."""
    written = "SELECT xmin::text, ctid::text FROM shard_count"
    assert await ledger.lock_shards(16)
    before = await pool.fetch(written)
    assert await ledger.lock_shards(16)
    assert await pool.fetch(written) == before
    with pytest.raises(Conflict):
        await ledger.lock_shards(8)
    assert ledger.lock_lost()


async def test_a_drainer_sees_that_its_lock_is_lost(
    ledger: PostgresLedger, second: PostgresLedger, ledger_url: str
) -> None:
    assert await ledger.lock_shards(16)
    killer = await asyncpg.connect(ledger_url)
    await killer.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
    )
    await killer.close()
    await until(lambda: asyncio.sleep(0, ledger.lock_lost()))
    await become_drainer(second)
    assert not await ledger.lock_shards(16)
    second.unlock_shards()
    await become_drainer(ledger)
    ledger.unlock_shards()


async def test_a_drainer_that_stands_still_is_not_waited_for(
    ledger: PostgresLedger, second: PostgresLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection stays, as that of a frozen process does, or of a machine that is gone."""
    monkeypatch.setattr(advisory_lock, "TIMEOUTS", replace(TIMEOUTS, drainer_idle_ms=100))
    assert await ledger.lock_shards(16)
    await become_drainer(second)
    await until(lambda: asyncio.sleep(0, ledger.lock_lost()))


async def test_another_number_of_shards_is_refused(
    ledger: PostgresLedger, second: PostgresLedger
) -> None:
    assert await ledger.lock_shards(16)
    ledger.unlock_shards()
    with pytest.raises(Conflict, match="begun with 16 shards, the configuration says 8"):
        await become_drainer(second, shards=8)
    assert second.lock_lost()
    await become_drainer(second)
