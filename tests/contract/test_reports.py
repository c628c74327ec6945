"""Exports and sums over the whole ledger."""

from __future__ import annotations

import json
import re
from pathlib import Path

from msgspec.structs import replace

from gateway.adapters.postgres.connection import Pool
from gateway.adapters.postgres.directory import PostgresDirectory
from gateway.adapters.postgres.ledger import PostgresLedger
from gateway.adapters.postgres.reports import Charge, ExportFilter, PostgresReports
from gateway.core.rid import derived_rid, make_rid
from gateway.ports.directory import Adjustment, PackCredit
from tests.contract.ledger_samples import (
    FIRST_UTC,
    NOVEMBER_MS,
    OCTOBER_MS,
    join_team,
    no_doubles,
    sample_row,
)


async def export(pool: Pool, wanted: ExportFilter) -> list[dict[str, object]]:
    return [entry async for entry in PostgresReports(pool).export(wanted)]


async def test_an_export_is_in_order_and_goes_on_where_it_stopped(
    pool: Pool, ledger: PostgresLedger
) -> None:
    ids = [make_rid(NOVEMBER_MS + n, b"x" * 10) for n in range(1200)]
    rows = [
        sample_row(f"{NOVEMBER_MS + n}-0", event_id=rid, user_id=f"user{n % 3}",
                   period_ms=(OCTOBER_MS, NOVEMBER_MS)[n % 2])
        for n, rid in enumerate(ids)
    ]  # fmt: skip
    await ledger.book(rows[::-1], [], no_doubles)
    entries = await export(pool, ExportFilter())
    assert [entry["event_id"] for entry in entries] == ids
    rest = await export(pool, ExportFilter(after_event_id=ids[999]))
    assert [entry["event_id"] for entry in rest] == ids[1000:]
    range_ms = ExportFilter(user_id="user1", from_ms=NOVEMBER_MS + 1, until_ms=NOVEMBER_MS + 7)
    assert [entry["event_id"] for entry in await export(pool, range_ms)] == [ids[1], ids[4]]


async def test_an_exported_entry_is_plain_values_under_the_columns_names(
    pool: Pool, ledger: PostgresLedger
) -> None:
    row = sample_row(f"{NOVEMBER_MS + 5}-0")
    await ledger.book([row], [], no_doubles)
    (entry,) = await export(pool, ExportFilter())
    columns = await pool.fetch(
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'ledger'"
    )
    assert set(entry) == {column["column_name"] for column in columns}
    assert (entry["at"], entry["period"]) == (
        "2026-11-01T00:00:00.005Z",
        "2026-11-01T00:00:00.000Z",
    )
    assert (entry["event_id"], entry["cost_nano_gbp"]) == (row.event_id, 700)
    assert json.loads(json.dumps(entry)) == entry


async def test_a_reader_may_stop_early_and_the_connection_is_free_again(
    pool: Pool, ledger: PostgresLedger
) -> None:
    await ledger.book([sample_row(f"1-{n}") for n in range(600)], [], no_doubles)
    entries = PostgresReports(pool).export(ExportFilter())
    assert await anext(entries)
    await entries.aclose()
    assert pool.get_idle_size() == pool.get_size()


async def test_charges_come_page_by_page_with_the_rid_they_belong_to(
    pool: Pool, ledger: PostgresLedger
) -> None:
    call = sample_row("1-0")
    late = replace(
        call, event_id=derived_rid(call.event_id, "late"), kind="correction",
        corrects=call.event_id, charged_tokens=-12, stream_id="2-0",
    )  # fmt: skip
    await ledger.book([call, late], [], no_doubles)
    reports = PostgresReports(pool)
    first = await reports.charges(None, 1)
    second = await reports.charges(first[0].event_id, 10)
    assert await reports.charges(second[0].event_id, 10) == []
    found = {charge.event_id: charge for charge in (*first, *second)}
    assert found == {
        row.event_id: Charge(
            row.event_id, call.event_id, "ann", 10, 20, row.charged_tokens, "measured", "done"
        )
        for row in (call, late)
    }


async def test_every_query_in_the_documentation_runs(pool: Pool) -> None:
    text = (Path(__file__).parents[2] / "docs" / "ledger.md").read_text("utf-8")
    queries = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    assert len(queries) >= 5
    for query in queries:
        assert await pool.fetch(query) == []


async def test_what_each_tier_has_used_is_its_payers_newest_period(
    pool: Pool, ledger: PostgresLedger, directory: PostgresDirectory
) -> None:
    """A payer's tier counts, whichever tiers the members of a team are on."""
    for user_id, tier in (("team", "full"), ("ann", "free"), ("bob", "free"), ("eve", "lite")):
        await directory.create_user(user_id, tier, FIRST_UTC)
    await join_team(pool, "ann", "team")
    await directory.adjust(
        Adjustment(make_rid(1, b"0123456789"), "bob", NOVEMBER_MS, -10, "r", "sue")
    )
    rows = [
        sample_row("1-0", payer="team", from_packs=5),
        sample_row("2-0", payer="team", user_id="team"),
        sample_row("3-0", payer="bob", user_id="bob"),
        sample_row("4-0", payer="bob", user_id="bob", period_ms=OCTOBER_MS),
        sample_row("5-0", payer="nobody", user_id="nobody"),
    ]
    await ledger.book(rows, [], no_doubles)
    assert await ledger.used_by_tier(NOVEMBER_MS + 86_400_000) == {"full": 60, "free": 20}


async def test_granted_packs_and_closed_periods_are_exported_but_no_charges(
    pool: Pool, ledger: PostgresLedger, directory: PostgresDirectory
) -> None:
    await directory.create_user("ann", "full", FIRST_UTC)
    await directory.credit_pack(
        PackCredit(make_rid(1, b"0123456789"), "ann", "p-1", 50, NOVEMBER_MS, "pay-1", "shop")
    )
    await ledger.book([sample_row("1-0", pack_split=(("p-1", 4),))], [], no_doubles)
    assert await ledger.close_periods(NOVEMBER_MS + 40 * 86_400_000, 10) == 1
    found = {entry["kind"]: entry for entry in await export(pool, ExportFilter())}
    assert set(found) == {"topup", "usage", "period_close"}
    told = [("usage", "pack_split"), ("topup", "topup"), ("period_close", "closing")]
    split, topup, closing = (json.loads(str(found[kind][name])) for kind, name in told)
    assert (split, topup["tokens"], closing["settled_tokens"]) == ({"p-1": 4}, 50, 30)
    assert json.loads(json.dumps(found)) == found
    assert len(await PostgresReports(pool).charges(None, 10)) == 1
    by_model = await pool.fetch("SELECT model, rows FROM usage_by_model")
    assert [tuple(each) for each in by_model] == [("gpt-4o-mini", 1)]
