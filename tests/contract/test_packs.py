"""Packs: granted once for a payment, spent by what is booked, told with what is left of them."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from gateway.adapters.postgres.connection import Pool
from gateway.adapters.postgres.directory import PostgresDirectory
from gateway.adapters.postgres.ledger import PostgresLedger
from gateway.core.event import PackSplit
from gateway.core.identity import Identity
from gateway.core.overrides import Overrides
from gateway.core.period import Calendar
from gateway.core.quota.entitle import PACKS_MAX, LedgerSums, Pack
from gateway.core.rid import make_rid
from gateway.ports.directory import PackCredit
from gateway.ports.ledger import Conflict, Watermark
from tests.contract.ledger_samples import (
    NOVEMBER_MS,
    join_team,
    no_doubles,
    sample_row,
    until,
)

TOKYO = Calendar(31, "Asia/Tokyo")
DAY_MS = 86_400_000
FAR_MS = NOVEMBER_MS + 3650 * DAY_MS
CREDIT = PackCredit(make_rid(1, b"0" * 10), "ann", "p-1", 500, FAR_MS, "pay-1", "shop")


@pytest.fixture
async def ann(directory: PostgresDirectory) -> Identity:
    return await directory.create_user("ann", "full", TOKYO)


def another(number: int, **changes: Any) -> PackCredit:
    """A credit for another payment, with `changes`."""
    made = replace(
        CREDIT,
        event_id=make_rid(1, os.urandom(10)),
        pack_id=f"p-{number}",
        payment_ref=f"pay-{number}",
    )
    return replace(made, **changes)


async def put_pack(pool: Pool, pack_id: str, ends: str, **columns: object) -> None:
    """A pack of ann's of 100 tokens that ends `ends` from now (an interval)."""
    given = {"granted_tokens": 100, "spent_tokens": 0, "refunded": False, **columns}
    await pool.execute(
        "INSERT INTO packs (pack_id, payer, granted_tokens, spent_tokens, ends_at, payment_ref,"
        " refunded_at) VALUES ($1, 'ann', $2, $3, now() + $4::text::interval, $1,"
        " CASE WHEN $5 THEN now() END)",
        *(pack_id, given["granted_tokens"], given["spent_tokens"], ends, given["refunded"]),
    )


async def told_packs(ledger: PostgresLedger, directory: PostgresDirectory) -> tuple[Pack, ...]:
    """What hydration and projection are told, which is the same."""
    sums = await ledger.sums("ann", None, NOVEMBER_MS, Watermark(0, 1, "0-0"))
    entitlement = await directory.entitlement("ann", None, NOVEMBER_MS)
    assert sums is not None
    assert entitlement is not None
    assert sums.packs == entitlement.packs
    return sums.packs


async def spent(pool: Pool) -> dict[str, int]:
    found = await pool.fetch("SELECT pack_id, spent_tokens FROM packs")
    return {record["pack_id"]: record["spent_tokens"] for record in found}


async def test_a_credited_pack_is_an_entry_that_charges_nothing(
    directory: PostgresDirectory, ledger: PostgresLedger, ann: Identity, pool: Pool
) -> None:
    assert await directory.credit_pack(CREDIT) == replace(ann, rev=2)
    assert await told_packs(ledger, directory) == (Pack("p-1", 500, FAR_MS),)
    entry = await pool.fetchrow(
        "SELECT *, epoch_ms(at) AS at_ms, epoch_ms(period) AS period_ms FROM ledger"
    )
    assert entry is not None
    shown = ("kind", "payer", "user_id", "tier", "charged_tokens", "quality", "outcome", "author")
    assert [entry[name] for name in shown] == [
        "topup", "ann", "ann", "full", 0, "measured", "recorded", "shop",
    ]  # fmt: skip
    assert str(entry["event_id"]) == CREDIT.event_id
    assert entry["period_ms"] == TOKYO.period_at(entry["at_ms"]).start_ms
    granted = {"pack_id": "p-1", "tokens": 500, "ends_ms": FAR_MS, "payment_ref": "pay-1"}
    assert json.loads(entry["topup"]) == granted
    assert await pool.fetchval("SELECT count(*) FROM period_usage") == 0
    logged = (await pool.fetch("SELECT who, what, user_id, detail FROM audit"))[-1]
    assert tuple(logged)[:3] == ("shop", "credit_pack", "ann")
    assert json.loads(logged["detail"]) == {"event_id": CREDIT.event_id, **granted}


async def test_one_payment_credits_one_pack_whoever_repeats_it(
    directory: PostgresDirectory, ann: Identity, pool: Pool
) -> None:
    """A repetition comes with new ids, and has reckoned the end anew."""
    again = [another(n, payment_ref="pay-1", ends_ms=FAR_MS + n) for n in range(6)]
    replies = await asyncio.gather(*(directory.credit_pack(each) for each in again))
    assert set(replies) == {replace(ann, rev=2)}
    assert await pool.fetchval("SELECT count(*) FROM packs") == 1
    assert await pool.fetchval("SELECT count(*) FROM ledger") == 1
    assert await pool.fetchval("SELECT count(*) FROM audit") == 2


async def test_a_payment_is_not_credited_for_another_grant(
    directory: PostgresDirectory, ann: Identity, pool: Pool
) -> None:
    bob = await directory.create_user("bob", "full", TOKYO)
    await directory.credit_pack(CREDIT)
    for other in (replace(CREDIT, tokens=501), replace(CREDIT, user_id="bob")):
        with pytest.raises(Conflict, match=r"credited already .*500 tokens to ann"):
            await directory.credit_pack(other)
    assert await directory.users() == [replace(ann, rev=2), bob]
    assert await pool.fetchval("SELECT count(*) FROM packs") == 1


async def test_of_two_payers_with_one_payment_at_once_one_is_refused(
    directory: PostgresDirectory, ann: Identity, pool: Pool
) -> None:
    for n in range(8):
        await directory.create_user(f"user{n}", "full", TOKYO)
    replies = await asyncio.gather(
        *(
            directory.credit_pack(another(n, user_id=f"user{n}", payment_ref="pay-1"))
            for n in range(8)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(reply, Identity) for reply in replies) == 1
    assert sum(isinstance(reply, Conflict) for reply in replies) == 7
    assert await pool.fetchval("SELECT count(*) FROM ledger") == 1
    assert await pool.fetchval("SELECT count(*) FROM users WHERE rev > 1") == 1


async def test_what_cannot_be_granted_changes_nothing(
    directory: PostgresDirectory, ann: Identity, pool: Pool
) -> None:
    await directory.credit_pack(CREDIT)
    for bad in (
        another(2, tokens=0),
        another(2, tokens=2**63),
        another(2, pack_id="p-1"),
        another(2, pack_id="a,b"),
        another(2, pack_id="a:b"),
        another(2, ends_ms=10**18),
        another(2, event_id="x"),
        another(2, payment_ref="a\0b"),
    ):
        with pytest.raises(Conflict, match="cannot be booked"):
            await directory.credit_pack(bad)
    with pytest.raises(Conflict, match="there is no user bob"):
        await directory.credit_pack(another(2, user_id="bob"))
    assert await directory.identity_of_user("ann") == replace(ann, rev=2)
    assert await pool.fetchval("SELECT count(*) FROM ledger") == 1


async def test_packs_that_can_be_spent_have_a_bound_and_others_do_not_count(
    directory: PostgresDirectory, ledger: PostgresLedger, ann: Identity, pool: Pool
) -> None:
    for n in range(PACKS_MAX):
        await put_pack(pool, f"q-{n:02}", f"{400 - n} days")
    with pytest.raises(Conflict, match="ann has 32 packs to spend"):
        await directory.credit_pack(CREDIT)
    await pool.execute("UPDATE packs SET spent_tokens = 100 WHERE pack_id = 'q-00'")
    await pool.execute("UPDATE packs SET refunded_at = now() WHERE pack_id = 'q-01'")
    await put_pack(pool, "ended", "-1 hour")
    await directory.credit_pack(CREDIT)
    assert await directory.credit_pack(CREDIT) == replace(ann, rev=2)
    await directory.credit_pack(another(2))
    with pytest.raises(Conflict, match="ann has 32 packs to spend"):
        await directory.credit_pack(another(3))
    live = [f"q-{n:02}" for n in range(PACKS_MAX - 1, 1, -1)]
    told = await told_packs(ledger, directory)
    assert [pack.pack_id for pack in told] == [*live, "p-1", "p-2"]


async def test_packs_are_told_by_end_with_what_is_left(
    directory: PostgresDirectory, ledger: PostgresLedger, ann: Identity, pool: Pool
) -> None:
    await put_pack(pool, "late", "9 days", spent_tokens=30)
    await put_pack(pool, "empty", "8 days", spent_tokens=101)
    await put_pack(pool, "refunded", "7 days", refunded=True)
    await put_pack(pool, "just-ended", "-23 hours")
    await put_pack(pool, "long-ended", "-25 hours")
    await directory.create_user("bob", "full", TOKYO)
    await directory.credit_pack(another(2, user_id="bob"))
    told = await told_packs(ledger, directory)
    assert [(pack.pack_id, pack.tokens) for pack in told] == [
        ("just-ended", 100), ("refunded", 0), ("empty", 0), ("late", 70),
    ]  # fmt: skip


async def test_what_packs_paid_follows_from_new_entries_only(
    directory: PostgresDirectory, ledger: PostgresLedger, ann: Identity, pool: Pool
) -> None:
    await directory.credit_pack(CREDIT)
    await directory.credit_pack(another(2))
    first = sample_row("1-0", pack_split=(("p-1", 20), ("p-2", 5)), from_packs=25)
    second = sample_row("2-0", pack_split=(("p-1", 3),), from_packs=3)
    back = sample_row(
        "3-0", kind="correction", charged_tokens=-9, pack_split=(("p-2", -4),), from_packs=-4
    )
    unknown = sample_row("4-0", payer="bob", pack_split=(("lost", 7),), from_packs=7)
    await ledger.book([first, second], [], no_doubles)
    await ledger.book([second, back, unknown, sample_row("5-0")], [], no_doubles)
    assert await spent(pool) == {"p-1": 23, "p-2": 1}
    kept = await pool.fetch("SELECT payer, from_packs FROM period_usage ORDER BY payer")
    assert [tuple(each) for each in kept] == [("ann", 24), ("bob", 7)]
    stored = await pool.fetchval("SELECT pack_split FROM ledger WHERE stream_id = '1-0'")
    assert json.loads(stored) == {"p-1": 20, "p-2": 5}
    assert await pool.fetchval("SELECT count(*) FROM ledger WHERE pack_split IS NULL") == 3
    assert [pack.tokens for pack in await told_packs(ledger, directory)] == [477, 499]


async def test_two_drainers_at_once_spend_each_pack_by_each_entry_once(
    directory: PostgresDirectory, ledger: PostgresLedger, ann: Identity, pool: Pool, ledger_url: str
) -> None:
    for n in range(1, 6):
        await directory.credit_pack(another(n))

    def split(n: int) -> PackSplit:
        return tuple((f"p-{1 + (n + k) % 5}", 1) for k in range(5))

    rows = [sample_row(f"{n}-0", pack_split=split(n), from_packs=5) for n in range(1, 201)]
    batches = [rows[n : n + 20] for n in range(0, 200, 20)]
    other = PostgresLedger(pool, ledger_url)
    await asyncio.gather(
        *(ledger.book(batch, [], no_doubles) for batch in batches),
        *(other.book(batch[::-1], [], no_doubles) for batch in batches[::-1]),
    )
    assert await spent(pool) == {f"p-{n}": 200 for n in range(1, 6)}
    assert await pool.fetchval("SELECT from_packs FROM period_usage") == 1000


async def test_packs_are_locked_in_the_order_of_their_ids(
    directory: PostgresDirectory, ledger: PostgresLedger, ann: Identity, ledger_url: str
) -> None:
    """So two writers wait for each other instead of deadlocking, however the packs lie on disk."""
    for n in (5, 4, 3, 2, 1):
        await directory.credit_pack(another(n))
    split = tuple((f"p-{n}", 1) for n in (4, 2, 5, 3, 1))
    other, looker = await asyncpg.connect(ledger_url), await asyncpg.connect(ledger_url)
    await other.execute("BEGIN; SELECT FROM packs WHERE pack_id = 'p-3' FOR UPDATE")
    booking = asyncio.ensure_future(
        ledger.book([sample_row("1-0", pack_split=split, from_packs=5)], [], no_doubles)
    )
    await until(lambda: looker.fetchval("SELECT true FROM pg_locks WHERE NOT granted"))
    unlocked = "SELECT pack_id FROM packs ORDER BY pack_id FOR UPDATE SKIP LOCKED"
    assert [each["pack_id"] for each in await looker.fetch(unlocked)] == ["p-4", "p-5"]
    await other.execute("COMMIT")
    assert len((await booking).booked) == 1
    await other.close()
    await looker.close()


async def test_a_members_pack_is_the_payers_and_members_have_none(
    directory: PostgresDirectory, ledger: PostgresLedger, ann: Identity, pool: Pool
) -> None:
    team = await directory.create_user("team", "full", TOKYO)
    await join_team(pool, "ann", "team")
    assert (await directory.credit_pack(CREDIT)).rev == 2
    assert await directory.identity_of_user("team") == replace(team, rev=2)
    with pytest.raises(Conflict, match="a team's tier and period are its own"):
        await directory.set_tier("ann", "free")
    await directory.set_limits("ann", Overrides(tokens=5))
    await ledger.book(
        [
            sample_row("1-0", payer="team", pack_split=(("p-1", 20),), from_packs=20),
            sample_row("2-0", payer="team", user_id="bob"),
            sample_row("3-0"),  # from before she joined
        ],
        [],
        no_doubles,
    )
    moment = Watermark(0, 1, "3-0")
    of_ann = await ledger.sums("team", "ann", NOVEMBER_MS, moment)
    assert of_ann == LedgerSums(30, 0, 0, 700, rev=3)
    of_team = await ledger.sums("team", None, NOVEMBER_MS, moment)
    assert of_team == LedgerSums(60, 20, 0, 1400, rev=2, packs=(Pack("p-1", 480, FAR_MS),))
    entitled = await directory.entitlement("team", "ann", NOVEMBER_MS)
    assert entitled is not None
    assert (entitled.rev, entitled.packs) == (3, ())
