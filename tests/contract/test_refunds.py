"""Refunds: what is left of a pack goes, what it had paid counts as used, once and to the token."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from typing import Any

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.postgres.connection import Pool
from gateway.adapters.postgres.directory import PostgresDirectory
from gateway.adapters.postgres.ledger import PostgresLedger
from gateway.adapters.postgres.sales import PostgresSales
from gateway.core.identity import Identity
from gateway.core.period import Calendar
from gateway.core.rid import make_rid
from gateway.jobs.reclaim import Reclaim
from gateway.ports.directory import PackCredit
from gateway.ports.ledger import Conflict
from gateway.ports.sales import Refund
from tests.contract.ledger_samples import NOVEMBER_MS, join_team, no_doubles, sample_row

TOKYO = Calendar(31, "Asia/Tokyo")
FAR_MS = 4_000_000_000_000


def new_id() -> str:
    return make_rid(1, os.urandom(10))


def credit(payment_ref: str = "pay-1", **changes: Any) -> PackCredit:
    made = PackCredit(new_id(), "ann", f"p-{payment_ref}", 500, FAR_MS, payment_ref, "shop")
    return replace(made, **changes)


def refund(payment_ref: str = "pay-1", reason: str = "unhappy") -> Refund:
    return Refund(new_id(), payment_ref, reason, "cli:jo")


@pytest.fixture
async def ann(directory: PostgresDirectory) -> Identity:
    return await directory.create_user("ann", "full", TOKYO)


@pytest.fixture
def sales(pool: Pool) -> PostgresSales:
    return PostgresSales(pool)


async def spend(ledger: PostgresLedger, tokens: int, at: str, **changes: Any) -> None:
    """One call that the pack paid wholly; below 0 a correction."""
    row = sample_row(
        at,
        charged_tokens=tokens,
        from_allowance=0,
        pack_split=(("p-pay-1", tokens),),
        from_packs=tokens,
        **changes,
    )
    await ledger.book([row], [], no_doubles)


async def adjusted(pool: Pool) -> list[tuple[int, str]]:
    found = await pool.fetch(
        "SELECT charged_tokens, reason FROM ledger WHERE kind = 'adjustment' ORDER BY at, event_id"
    )
    return [(record["charged_tokens"], record["reason"]) for record in found]


async def faults(pool: Pool) -> list[str]:
    return [record["fault"] for record in await pool.fetch("SELECT fault FROM topup_faults")]


async def test_a_refund_takes_what_is_left_and_books_what_was_spent(
    directory: PostgresDirectory,
    ledger: PostgresLedger,
    sales: PostgresSales,
    ann: Identity,
    pool: Pool,
) -> None:
    await directory.credit_pack(credit())
    await spend(ledger, 120, "1-0")
    (before,) = await sales.packs("ann")
    assert (before.left_tokens, before.live, before.refunded_ms) == (380, True, None)
    taken = refund()
    assert await sales.refund(taken) == replace(ann, rev=3)
    assert await sales.reclaim("pay-1", new_id()) == replace(ann, rev=4)

    after = await sales.pack_of("pay-1")
    assert after is not None
    assert (after.left_tokens, after.live, after.spent_tokens) == (0, False, 120)
    assert (after.reclaimed_tokens, after.reason) == (120, "unhappy")
    assert after.refunded_ms is not None
    entry = await pool.fetchrow("SELECT * FROM ledger WHERE kind = 'refund'")
    assert entry is not None
    assert str(entry["event_id"]) == taken.event_id
    assert json.loads(entry["refund"]) == {
        "pack_id": "p-pay-1", "payment_ref": "pay-1", "tokens": 500, "left_tokens": 380,
    }  # fmt: skip
    assert (entry["charged_tokens"], entry["reason"], entry["author"]) == (0, "unhappy", "cli:jo")
    booked = await pool.fetchrow(
        "SELECT epoch_ms(period) AS period_ms, epoch_ms(now()) AS now_ms, corrects, author"
        " FROM ledger WHERE kind = 'adjustment'"
    )
    assert booked is not None
    assert booked["period_ms"] == TOKYO.period_at(booked["now_ms"]).start_ms
    assert (str(booked["corrects"]), booked["author"]) == (taken.event_id, "cli:jo")
    assert await adjusted(pool) == [(120, "paid by the refunded pack of pay-1: unhappy")]
    entitled = await directory.entitlement("ann", None, booked["period_ms"])
    assert entitled is not None
    assert entitled.adjusted_tokens == 120
    assert [pack.tokens for pack in entitled.packs] == [0]
    assert [r["what"] for r in await pool.fetch("SELECT what FROM audit ORDER BY audit_id")] == [
        "create_user", "credit_pack", "refund_pack", "adjust",
    ]  # fmt: skip
    assert await faults(pool) == []


async def test_a_payment_is_refunded_once_whoever_repeats_it(
    directory: PostgresDirectory,
    ledger: PostgresLedger,
    sales: PostgresSales,
    ann: Identity,
    pool: Pool,
) -> None:
    await directory.credit_pack(credit())
    await spend(ledger, 120, "1-0")
    await asyncio.gather(*(sales.refund(refund()) for _ in range(6)))
    await asyncio.gather(*(sales.reclaim("pay-1", new_id()) for _ in range(6)))
    assert await pool.fetchval("SELECT count(*) FROM ledger WHERE kind = 'refund'") == 1
    assert await pool.fetchval("SELECT count(*) FROM refunds") == 1
    assert [tokens for tokens, _ in await adjusted(pool)] == [120]
    assert await pool.fetchval("SELECT rev FROM users") == 4


async def test_what_was_never_credited_cannot_be_refunded(
    sales: PostgresSales, ann: Identity, pool: Pool
) -> None:
    with pytest.raises(Conflict, match="nothing was credited for the payment 'pay-9'"):
        await sales.refund(refund("pay-9"))
    assert await sales.reclaim("pay-9", new_id()) is None
    assert await pool.fetchval("SELECT count(*) FROM ledger") == 0


async def test_calls_that_reach_the_ledger_after_the_refund_are_reclaimed_by_the_job(
    directory: PostgresDirectory,
    ledger: PostgresLedger,
    sales: PostgresSales,
    ann: Identity,
    pool: Pool,
) -> None:
    """What Redis had charged when the refund came is drained later, and may be corrected."""
    await directory.credit_pack(credit())
    await spend(ledger, 100, "1-0")
    await sales.refund(refund())
    job = Reclaim(sales, SystemClock())
    await job.step()
    assert [tokens for tokens, _ in await adjusted(pool)] == [100]
    assert await sales.reclaimable(10) == []
    await spend(ledger, 50, "2-0")
    await spend(ledger, -30, "3-0", kind="correction")
    assert await sales.reclaimable(10) == ["pay-1"]
    await job.step()
    await job.step()
    assert [tokens for tokens, _ in await adjusted(pool)] == [100, 20]
    pack = await sales.pack_of("pay-1")
    assert pack is not None
    assert (pack.spent_tokens, pack.reclaimed_tokens) == (120, 120)
    kept = await pool.fetch("SELECT sum(adjusted_tokens) AS adjusted FROM period_usage")
    assert [record["adjusted"] for record in kept] == [120]
    assert await faults(pool) == []


async def test_refunds_drains_and_reclaiming_at_once_do_not_wait_in_a_circle(
    directory: PostgresDirectory,
    ledger: PostgresLedger,
    sales: PostgresSales,
    ann: Identity,
    pool: Pool,
) -> None:
    await directory.credit_pack(credit())
    job = Reclaim(sales, SystemClock())
    await sales.refund(refund())
    for n in range(1, 31):
        await asyncio.gather(spend(ledger, 3, f"{n}-0"), job.step(), job.step())
    await job.step()
    assert sum(tokens for tokens, _ in await adjusted(pool)) == 90
    assert await faults(pool) == []


async def test_of_a_team_the_payer_gives_back(
    directory: PostgresDirectory, ledger: PostgresLedger, sales: PostgresSales, pool: Pool
) -> None:
    for user_id in ("team", "ann"):
        await directory.create_user(user_id, "full", TOKYO)
    await join_team(pool, "ann", "team")
    await directory.credit_pack(credit())
    await spend(ledger, 40, "1-0", payer="team")
    assert (await sales.refund(refund())).user_id == "team"
    reclaimed = await sales.reclaim("pay-1", new_id())
    assert reclaimed is not None
    assert reclaimed.user_id == "team"
    of_team = await directory.entitlement(
        "team",
        None,
        reclaimed.calendar.period_at(await pool.fetchval("SELECT epoch_ms(now())")).start_ms,
    )
    assert of_team is not None
    assert of_team.adjusted_tokens == 40
    assert [pack.payer for pack in await sales.packs("team")] == ["team"]


async def test_each_fault_is_found(
    directory: PostgresDirectory,
    ledger: PostgresLedger,
    sales: PostgresSales,
    ann: Identity,
    pool: Pool,
) -> None:
    for ref in ("pay-1", "pay-2", "pay-3"):
        await directory.credit_pack(credit(ref))
    await spend(ledger, 40, "1-0")
    await sales.refund(refund())
    await sales.reclaim("pay-1", new_id())
    assert await faults(pool) == []
    for statement, fault in (
        ("UPDATE packs SET granted_tokens = 501 WHERE payment_ref = 'pay-2'", "no topup entry"),
        ("DELETE FROM packs WHERE payment_ref = 'pay-3'", "without its pack"),
        ("UPDATE packs SET spent_tokens = 41 WHERE payment_ref = 'pay-1'", "spent_tokens"),
        ("UPDATE packs SET refunded_at = now() WHERE payment_ref = 'pay-2'", "without a refund"),
        ("UPDATE refunds SET reclaimed_tokens = 39", "reclaimed_tokens"),
    ):
        async with pool.acquire() as connection:
            planted = connection.transaction()
            await planted.start()
            await connection.execute(statement)
            found = await connection.fetch("SELECT fault FROM topup_faults")
            await planted.rollback()
        assert [record["fault"] for record in found if fault in record["fault"]], statement


async def test_packs_are_listed_the_newest_first(
    directory: PostgresDirectory, sales: PostgresSales, ann: Identity
) -> None:
    for ref in ("pay-1", "pay-2"):
        await directory.credit_pack(credit(ref, ends_ms=NOVEMBER_MS if ref == "pay-2" else FAR_MS))
    assert [(p.payment_ref, p.ends_ms) for p in await sales.packs("ann")] == [
        ("pay-2", NOVEMBER_MS), ("pay-1", FAR_MS),
    ]  # fmt: skip
    assert await sales.packs("nobody") == []
    assert await sales.pack_of("pay-9") is None


async def test_a_pack_of_ones_own_is_refunded_also_after_joining_a_team(
    directory: PostgresDirectory, ledger: PostgresLedger, sales: PostgresSales, pool: Pool
) -> None:
    """Its own account keeps pack and period; the team's is not touched."""
    await directory.create_user("ann", "full", TOKYO)
    await directory.create_user("team", "full", Calendar(1, "UTC"))
    await directory.credit_pack(credit())
    await spend(ledger, 40, "1-0")
    await join_team(pool, "ann", "team")
    await sales.refund(refund())
    await sales.reclaim("pay-1", new_id())
    now_ms = await pool.fetchval("SELECT epoch_ms(now())")
    of_ann = await directory.entitlement("ann", None, TOKYO.period_at(now_ms).start_ms)
    assert of_ann is not None
    assert of_ann.adjusted_tokens == 40
    assert await pool.fetchval("SELECT count(*) FROM ledger WHERE payer = 'team'") == 0
    assert await faults(pool) == []
