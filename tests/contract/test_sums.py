"""What hydration asks (sums up to a stream id, epochs) and the right to drain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from gateway.adapters.postgres.connection import Pool
from gateway.adapters.postgres.directory import PostgresDirectory
from gateway.adapters.postgres.ledger import PostgresLedger
from gateway.core.rid import make_rid
from gateway.ports.ledger import Adjustment, Conflict
from gateway.ports.quota_store import LedgerSums
from tests.contract.ledger_samples import NOVEMBER_MS, OCTOBER_MS, sample_row, until


async def test_sums_wait_for_the_cursor(ledger: PostgresLedger) -> None:
    assert await ledger.sums("ann", NOVEMBER_MS, 0, 1, "9-0") is None
    await ledger.book([sample_row("9-0")], [])
    assert await ledger.sums("ann", NOVEMBER_MS, 0, 1, "10-0") is None
    assert await ledger.sums("ann", NOVEMBER_MS, 1, 1, "9-0") is None
    assert await ledger.sums("ann", NOVEMBER_MS, 0, 2, "9-0") is None
    assert await ledger.sums("ann", NOVEMBER_MS, 0, 1, "9-0") == LedgerSums(30, 0, 700, 0)


async def test_a_stream_never_used_is_reached_at_once(ledger: PostgresLedger) -> None:
    assert await ledger.sums("ann", NOVEMBER_MS, 0, 1, "0-0") == LedgerSums(0, 0, 0, 0)


async def test_sums_stop_at_the_stream_id_by_number(ledger: PostgresLedger) -> None:
    """What came later is in Redis already: it was settled after the hydration began."""
    ids = ["9-0", "9-9", "9-10", "10-0"]
    await ledger.book([sample_row(stream_id) for stream_id in ids], [])
    for rows, stream_id in enumerate(ids, start=1):
        sums = await ledger.sums("ann", NOVEMBER_MS, 0, 1, stream_id)
        assert sums == LedgerSums(30 * rows, 0, 700 * rows, 0), stream_id


async def test_older_epochs_count_wholly_and_newer_ones_not(ledger: PostgresLedger) -> None:
    await ledger.book([sample_row("90-0", epoch=1), sample_row("91-0", epoch=2)], [])
    await ledger.book([sample_row("99-0", epoch=3)], [])
    sums = await ledger.sums("ann", NOVEMBER_MS, 0, 2, "50-0")
    assert sums == LedgerSums(30, 0, 700, 0)
    sums = await ledger.sums("ann", NOVEMBER_MS, 0, 3, "99-0")
    assert sums == LedgerSums(90, 0, 2100, 0)


async def test_sums_are_of_one_payer_and_period_with_adjustments_and_revision(
    ledger: PostgresLedger, directory: PostgresDirectory
) -> None:
    await directory.create_user("ann", "free", 1, "UTC")
    await directory.adjust(
        Adjustment(make_rid(1, b"0123456789"), "ann", NOVEMBER_MS, -8, "sorry", "sue")
    )
    await ledger.book(
        [
            sample_row("1-0"),
            sample_row("2-0", payer="bob"),
            sample_row("3-0", period_ms=OCTOBER_MS),
            sample_row("4-0", kind="correction", charged_tokens=-5, cost_nano_gbp=-100),
        ],
        [],
    )
    sums = await ledger.sums("ann", NOVEMBER_MS, 0, 1, "4-0")
    assert sums == LedgerSums(settled_tokens=25, adjusted_tokens=-8, cost_nano_gbp=600, rev=2)


async def test_an_epoch_is_raised_once_by_many(ledger: PostgresLedger) -> None:
    for seen in (0, 1):
        raised = await asyncio.gather(*(ledger.raise_epoch(3, seen) for _ in range(8)))
        assert set(raised) == {(seen + 1, "0-0")}
    await ledger.book([sample_row("7-7", shard=3)], [])
    assert await ledger.raise_epoch(3, 1) == (2, "7-7")
    assert await ledger.raise_epoch(3, 2) == (3, "7-7")


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


async def test_another_number_of_shards_is_refused(
    ledger: PostgresLedger, second: PostgresLedger
) -> None:
    assert await ledger.lock_shards(16)
    ledger.unlock_shards()
    with pytest.raises(Conflict, match="begun with 16 shards, the configuration says 8"):
        await become_drainer(second, shards=8)
    assert second.lock_lost()
    await become_drainer(second)
