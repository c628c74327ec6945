"""Users and keys: each change raises the revision and leaves its author behind."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import replace

import asyncpg
import pytest

from gateway.adapters.postgres.connection import Pool
from gateway.adapters.postgres.directory import PostgresDirectory
from gateway.core.identity import Identity
from gateway.core.period import Calendar
from gateway.core.quota.entitle import Entitlement
from gateway.core.rid import make_rid
from gateway.ports.directory import Adjustment
from gateway.ports.ledger import Conflict
from tests.contract.ledger_samples import FIRST_UTC, NOVEMBER_MS, OCTOBER_MS, join_team

LONDON = Calendar(15, "Europe/London")
ANN = Identity("ann", payer="ann", tier="free", rev=1, calendar=LONDON)
DIGEST = hashlib.sha256(b"a key").digest()
GIFT = Adjustment(make_rid(1, b"0123456789"), "ann", NOVEMBER_MS, 500, "set-used", "sue")


@pytest.fixture
async def ann(directory: PostgresDirectory) -> Identity:
    return await directory.create_user("ann", "free", LONDON)


async def audit(pool: Pool) -> list[tuple[str, str, str, dict[str, object]]]:
    found = await pool.fetch("SELECT who, what, user_id, detail FROM audit ORDER BY audit_id")
    return [(who, what, user_id, json.loads(detail)) for who, what, user_id, detail in found]


async def test_a_user_is_created_once(
    directory: PostgresDirectory, ann: Identity, pool: Pool
) -> None:
    assert ann == ANN
    assert await directory.identity_of_user("ann") == ANN
    with pytest.raises(Conflict, match="user ann exists already"):
        await directory.create_user("ann", "full", FIRST_UTC)
    for bad_id in ("", "a b", "a\0b", "-a", "a" * 129):
        with pytest.raises(Conflict, match="is not valid"):
            await directory.create_user(bad_id, "free", FIRST_UTC)
    with pytest.raises(Conflict, match="anchor_day"):
        await directory.create_user("bob", "free", Calendar(32, "UTC"))
    assert await directory.users() == [ANN]
    detail = {"tier": "free", "anchor_day": 15, "zone": "Europe/London"}
    assert await audit(pool) == [("tester", "create_user", "ann", detail)]


async def test_whom_nobody_knows_is_none_and_unchangeable(directory: PostgresDirectory) -> None:
    assert await directory.identity_of_user("ann") is None
    assert await directory.identity_of_user("a\0b") is None
    assert await directory.identity_of_key(DIGEST) is None
    assert await directory.entitlement("ann", None, NOVEMBER_MS) is None
    for change in (
        directory.set_tier("ann", "full"),
        directory.set_calendar("ann", FIRST_UTC),
        directory.create_key("k1", "ann", DIGEST),
        directory.adjust(GIFT),
    ):
        with pytest.raises(Conflict, match="there is no user ann"):
            await change
    with pytest.raises(Conflict, match="there is no key k1"):
        await directory.revoke_key("k1")


async def test_a_changed_tier_raises_the_revision(
    directory: PostgresDirectory, ann: Identity, pool: Pool
) -> None:
    assert await directory.set_tier("ann", "full") == replace(ANN, tier="full", rev=2)
    assert await directory.identity_of_user("ann") == replace(ANN, tier="full", rev=2)
    assert (await audit(pool))[1:] == [
        ("tester", "set_tier", "ann", {"tier": "full", "before": {"tier": "free"}})
    ]


async def test_a_calendar_is_kept_with_the_one_before_it(
    directory: PostgresDirectory, ann: Identity, pool: Pool
) -> None:
    first = LONDON.changed(31, "Asia/Tokyo", NOVEMBER_MS)
    second = first.changed(2, "UTC", first.since_ms + 40 * 86_400_000)
    for rev, calendar in ((2, first), (3, second)):
        changed = replace(ANN, rev=rev, calendar=calendar)
        assert await directory.set_calendar("ann", calendar) == changed
        assert await directory.identity_of_user("ann") == changed
    assert await directory.unprojected(10) == [changed]
    assert (await audit(pool))[1] == (
        "tester", "set_calendar", "ann",
        {"anchor_day": 31, "zone": "Asia/Tokyo", "since_ms": first.since_ms,
         "before": {"anchor_day": 15, "zone": "Europe/London"}},
    )  # fmt: skip
    made = await directory.create_user("bob", "free", second)
    assert made.calendar == second
    with pytest.raises(Conflict, match="anchor_day"):
        await directory.set_calendar("ann", replace(second, anchor_day=0))
    assert await directory.identity_of_user("ann") == changed


async def test_a_payers_calendar_is_that_of_its_members(
    directory: PostgresDirectory, ann: Identity, pool: Pool
) -> None:
    await directory.create_user("team", "full", LONDON)
    await join_team(pool, "ann", "team")
    later = LONDON.changed(1, "UTC", NOVEMBER_MS)
    await directory.set_calendar("team", later)
    of_ann = Identity("ann", "team", "full", 2, later, member_rev=1)
    assert await directory.identity_of_user("ann") == of_ann
    assert len(await audit(pool)) == 3


async def test_revisions_are_raised_past_what_a_store_knows_and_no_further(
    directory: PostgresDirectory, ann: Identity
) -> None:
    bob = await directory.create_user("bob", "free", LONDON)
    for _ in range(2):
        await directory.raise_revision("ann", 7)
    await directory.raise_revision("ann", 5)
    assert await directory.identity_of_user("ann") == replace(ann, rev=8)
    assert await directory.identity_of_user("bob") == bob


async def test_a_key_finds_its_user_until_it_is_revoked(
    directory: PostgresDirectory, ann: Identity, pool: Pool
) -> None:
    assert await directory.create_key("k1", "ann", DIGEST) == replace(ANN, rev=2)
    assert await directory.identity_of_key(DIGEST) == replace(ANN, rev=2)
    assert await directory.revoke_key("k1") == replace(ANN, rev=3)
    assert await directory.identity_of_key(DIGEST) is None
    assert await directory.identity_of_user("ann") == replace(ANN, rev=3)
    revoked_at = await pool.fetchval("SELECT revoked_at FROM api_keys")
    await directory.revoke_key("k1")
    assert await pool.fetchval("SELECT revoked_at FROM api_keys") == revoked_at
    assert [(what, detail) for _, what, _, detail in (await audit(pool))[1:3]] == [
        ("create_key", {"key_id": "k1"}),
        ("revoke_key", {"key_id": "k1"}),
    ]


async def test_a_service_key_is_told_apart_and_stands_so_in_the_audit(
    directory: PostgresDirectory, ann: Identity, pool: Pool
) -> None:
    other = hashlib.sha256(b"another").digest()
    await directory.create_key("k1", "ann", DIGEST, is_service=True)
    await directory.create_key("k2", "ann", other)
    assert await directory.identity_of_key(DIGEST) == replace(ANN, rev=3, is_service=True)
    assert await directory.identity_of_key(other) == replace(ANN, rev=3)
    assert (await audit(pool))[1][3] == {"key_id": "k1", "is_service": True}


async def test_a_refused_key_changes_nothing(
    directory: PostgresDirectory, ann: Identity, pool: Pool
) -> None:
    await directory.create_key("k1", "ann", DIGEST)
    other = hashlib.sha256(b"another").digest()
    for key_id, digest in (("k1", other), ("k2", DIGEST), ("k3", b"short"), ("k\0", other)):
        with pytest.raises(Conflict):
            await directory.create_key(key_id, "ann", digest)
    assert await directory.identity_of_user("ann") == replace(ANN, rev=2)
    assert await pool.fetchval("SELECT count(*) FROM api_keys") == 1
    assert len(await audit(pool)) == 2


async def test_a_disabled_user_is_as_good_as_unknown(
    directory: PostgresDirectory, ann: Identity, pool: Pool
) -> None:
    await directory.create_key("k1", "ann", DIGEST)
    await pool.execute("UPDATE users SET disabled_at = now()")
    assert await directory.identity_of_key(DIGEST) is None
    assert await directory.identity_of_user("ann") is None


async def test_an_adjustment_is_an_entry_and_part_of_the_entitlement(
    directory: PostgresDirectory, ann: Identity, pool: Pool
) -> None:
    assert await directory.adjust(GIFT) == replace(ANN, rev=2)
    less = replace(GIFT, event_id=make_rid(2, b"0123456789"), tokens=-200)
    assert await directory.adjust(less) == replace(ANN, rev=3)
    assert await directory.entitlement("ann", None, NOVEMBER_MS) == Entitlement(
        "ann", 3, NOVEMBER_MS, 300
    )
    assert await directory.entitlement("ann", None, OCTOBER_MS) == Entitlement(
        "ann", 3, OCTOBER_MS, 0
    )
    entry = await pool.fetchrow("SELECT * FROM ledger WHERE charged_tokens = 500")
    assert entry is not None
    shown = ("kind", "payer", "user_id", "tier", "quality", "outcome", "reason", "author")
    assert [entry[name] for name in shown] == [
        "adjustment", "ann", "ann", "free", "measured", "recorded", "set-used", "sue",
    ]  # fmt: skip
    assert entry["stream_id"] is None
    detail = {"event_id": GIFT.event_id, "tokens": 500, "reason": "set-used"}
    assert (await audit(pool))[1] == ("sue", "adjust", "ann", detail)


async def test_a_members_adjustment_counts_for_both_and_is_told_to_both(
    directory: PostgresDirectory, ann: Identity, pool: Pool
) -> None:
    await directory.create_user("team", "full", LONDON)
    await join_team(pool, "ann", "team")
    await directory.adjust(replace(GIFT, event_id=make_rid(2, b"0" * 10), user_id="team"))
    adjusted = await directory.adjust(GIFT)
    assert (adjusted.rev, adjusted.member_rev) == (3, 2)
    of_team, of_ann = [
        await directory.entitlement("team", member, NOVEMBER_MS) for member in (None, "ann")
    ]
    assert of_team == Entitlement("team", 3, NOVEMBER_MS, 1000)
    assert of_ann == Entitlement("team", 2, NOVEMBER_MS, 500, member="ann")
    assert [(who.user_id, who.member_rev or who.rev) for who in await directory.unprojected(9)] == [
        ("ann", 2),
        ("team", 3),
    ]
    assert await directory.entitlement("team", "bob", NOVEMBER_MS) is None
    own = await directory.entitlement("ann", None, NOVEMBER_MS)
    assert own == Entitlement("ann", 2, NOVEMBER_MS, 0), "the account from before she joined"
    assert await directory.entitlement("bob", "ann", NOVEMBER_MS) is None


async def test_the_same_adjustment_many_times_is_booked_once(
    directory: PostgresDirectory, ann: Identity, pool: Pool
) -> None:
    replies = await asyncio.gather(*(directory.adjust(GIFT) for _ in range(6)))
    assert set(replies) == {replace(ANN, rev=2)}
    assert await pool.fetchval("SELECT count(*) FROM ledger") == 1
    assert await pool.fetchval("SELECT adjusted_tokens FROM period_usage") == 500
    assert len(await audit(pool)) == 2
    for other in (replace(GIFT, tokens=1), replace(GIFT, period_start_ms=OCTOBER_MS)):
        with pytest.raises(Conflict, match=r"booked already as something else .*500 tokens"):
            await directory.adjust(other)
    for bad in (
        replace(GIFT, event_id="x"),
        replace(GIFT, event_id=make_rid(3, b"x" * 10), tokens=2**63),
    ):
        with pytest.raises(Conflict, match="cannot be booked"):
            await directory.adjust(bad)
    assert await directory.identity_of_user("ann") == replace(ANN, rev=2)


async def test_changes_stay_to_be_projected_until_confirmed(
    directory: PostgresDirectory, ann: Identity
) -> None:
    bob = await directory.create_user("bob", "lite", FIRST_UTC)
    assert await directory.unprojected(10) == [ANN, bob]
    assert await directory.unprojected(1) == [ANN]
    await directory.mark_projected("ann", 1)
    assert await directory.unprojected(10) == [bob]
    changed = await directory.set_tier("ann", "full")
    assert await directory.unprojected(10) == [changed, bob]
    await directory.mark_projected("ann", 2)
    await directory.mark_projected("ann", 1)
    assert await directory.unprojected(10) == [bob]


async def test_the_audit_is_append_only(pool: Pool, ann: Identity) -> None:
    for change in ("UPDATE audit SET who = 'x'", "DELETE FROM audit", "TRUNCATE audit"):
        with pytest.raises(asyncpg.RestrictViolationError, match="never edited"):
            await pool.execute(change)


async def test_who_was_changed_lately_is_told_in_order_a_part_at_a_time(
    directory: PostgresDirectory, pool: Pool
) -> None:
    for user_id in ("cy", "ann", "bob", "dan"):
        await directory.create_user(user_id, "free", LONDON)
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")  # else refused
        await connection.execute("UPDATE audit SET at = now() - interval '2 hours'")
    assert await directory.changed_lately(3600, "", 9) == []
    changed = [await directory.set_tier(user_id, "full") for user_id in ("ann", "bob", "dan")]
    assert await directory.changed_lately(3600, "", 9) == changed
    assert await directory.changed_lately(3600, "", 2) == changed[:2]
    assert await directory.changed_lately(3600, "bob", 9) == changed[2:]
