"""Corrections by hand: booked once with all that follows, and by one person at a time."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from gateway.adapters.postgres.connection import Pool
from gateway.adapters.postgres.corrections import PostgresCorrections
from gateway.adapters.postgres.directory import PostgresDirectory
from gateway.adapters.postgres.ledger import PostgresLedger
from gateway.adapters.postgres.reports import PostgresReports
from gateway.core.rid import make_rid
from gateway.ports.corrections import HandCorrection
from gateway.ports.directory import PackCredit
from gateway.ports.ledger import Conflict, Watermark
from tests.contract.ledger_samples import FIRST_UTC, NOVEMBER_MS, no_doubles, sample_row

FAR_MS = NOVEMBER_MS + 3650 * 86_400_000
LOST = HandCorrection(
    event_id=make_rid(NOVEMBER_MS, b"1" * 10),
    payer="ann",
    tier="full",
    period_start_ms=NOVEMBER_MS,
    charged_tokens=500,
    cost_nano_gbp=9_000,
    pack_split=(("p-1", 120),),
    reason="the backup of Monday",
    author="cli:repair",
)


@pytest.fixture
def corrections(pool: Pool, ledger_url: str) -> PostgresCorrections:
    return PostgresCorrections(pool, ledger_url)


async def test_what_follows_from_an_entry_follows_from_a_correction_and_once(
    pool: Pool,
    ledger: PostgresLedger,
    directory: PostgresDirectory,
    corrections: PostgresCorrections,
) -> None:
    await directory.create_user("ann", "full", FIRST_UTC)
    await directory.credit_pack(
        PackCredit(make_rid(1, b"0" * 10), "ann", "p-1", 500, FAR_MS, "pay-1", "shop")
    )
    await ledger.book([sample_row("5-0")], [], no_doubles)
    for _ in range(2):
        await corrections.book(LOST)
    for stream_id in ("5-0", "0-0"):  # it counts from the beginning: it has no place in the outbox
        sums = await ledger.sums("ann", None, NOVEMBER_MS, Watermark(0, 1, stream_id))
        assert sums is not None
        booked = 30 if stream_id == "5-0" else 0
        assert (sums.settled_tokens, sums.from_packs) == (500 + booked, 120)
        assert [pack.tokens for pack in sums.packs] == [380]
    kept = await pool.fetchrow("SELECT * FROM period_usage WHERE payer = 'ann'")
    assert kept is not None
    assert (kept["settled_tokens"], kept["from_packs"], kept["rows"]) == (530, 120, 2)
    assert kept["cost_nano_gbp"] == 9_700
    entry = await pool.fetchrow("SELECT * FROM ledger WHERE kind = 'correction'")
    assert entry is not None
    told = (entry["user_id"], entry["from_allowance"], entry["reason"], entry["author"])
    assert told == ("ann", 380, "the backup of Monday", "cli:repair")
    (line,) = await pool.fetch("SELECT * FROM audit WHERE what = 'book_correction'")
    assert (line["who"], line["user_id"]) == ("cli:repair", "ann")
    assert json.loads(line["detail"])["tokens"] == 500
    assert not await PostgresReports(pool).pack_faults()


async def test_only_one_repairs(corrections: PostgresCorrections) -> None:
    async with corrections.alone():
        with pytest.raises(Conflict, match="by somebody else: try again later"):
            async with corrections.alone():
                pass
    async with corrections.alone():
        pass


async def test_what_postgres_refuses_is_told(corrections: PostgresCorrections) -> None:
    with pytest.raises(Conflict, match="cannot be booked"):
        await corrections.book(replace(LOST, event_id="no id"))
