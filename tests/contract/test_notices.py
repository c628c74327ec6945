"""What people are told of exists once: for each period, threshold and arming, whoever finds it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from gateway.adapters.postgres.connection import Pool
from gateway.adapters.postgres.directory import PostgresDirectory
from gateway.adapters.postgres.ledger import PostgresLedger
from gateway.adapters.postgres.notices import PostgresNotices
from gateway.core.event import LedgerRow
from gateway.ports.notices import Exhaustion
from tests.contract.ledger_samples import NOVEMBER_MS, join_team, no_doubles, sample_row

_AUDIT = "INSERT INTO audit (who, what, user_id, detail) VALUES ('t', $2, $1, $3)"
_PACK = """
INSERT INTO packs (pack_id, payer, granted_tokens, spent_tokens, ends_at, payment_ref)
VALUES ('p', 'ann', 100, $1, now() + interval '1 day', 'p')
"""


async def told(pool: Pool) -> list[tuple[Any, ...]]:
    found = await pool.fetch(
        "SELECT user_id, kind, threshold FROM notifications ORDER BY notification_id"
    )
    return [tuple(record) for record in found]


def crossing(percent: int, place: int, **changes: Any) -> LedgerRow:
    """The entry that crossed it, just now."""
    return sample_row(f"{int(time.time() * 1000) + 1}-{place}", crossed_percent=percent, **changes)


async def book(ledger: PostgresLedger, *rows: LedgerRow) -> None:
    await ledger.book(rows, [], no_doubles)


async def test_a_crossing_is_noted_with_its_entry_and_never_again(
    ledger: PostgresLedger, pool: Pool
) -> None:
    first, second = crossing(80, 1), crossing(95, 2)
    await book(ledger, first, sample_row("3-0"), second)
    await book(ledger, first, second)  # read again: nothing is new
    await book(ledger, crossing(80, 4))  # fell below by a correction, and came back
    assert await told(pool) == [("ann", "crossing", 80), ("ann", "crossing", 95)]


async def test_another_period_is_another_crossing(ledger: PostgresLedger, pool: Pool) -> None:
    await book(ledger, crossing(80, 1), crossing(80, 2, period_ms=NOVEMBER_MS - 86_400_000))
    assert await told(pool) == [("ann", "crossing", 80)] * 2


@pytest.mark.parametrize(
    ("what", "detail", "is_armed"),
    [
        ("credit_pack", "{}", True),
        ("set_tier", "{}", True),
        ("claim_tier", "{}", True),
        ("set_limits", "{}", True),
        ("adjust", '{"tokens": -5}', True),
        ("adjust", '{"tokens": 5}', False),
        ("create_key", "{}", False),
        ("set_state", "{}", False),
    ],
)
async def test_what_makes_room_arms_anew_and_nothing_else(
    ledger: PostgresLedger, pool: Pool, what: str, detail: str, is_armed: bool
) -> None:
    await book(ledger, crossing(80, 1))
    await pool.execute(_AUDIT, "ann", what, detail)
    await asyncio.sleep(0.01)
    await book(ledger, crossing(80, 2))
    assert len(await told(pool)) == 1 + is_armed


async def test_what_a_member_is_given_arms_its_team_and_its_own_limits_do_not(
    ledger: PostgresLedger, pool: Pool, directory: PostgresDirectory
) -> None:
    for user in ("crew", "ann"):
        await pool.execute(
            "INSERT INTO users (user_id, payer, tier, anchor_day, zone) "
            "VALUES ($1, $1, 'free', 1, 'UTC')",
            user,
        )
    await join_team(pool, "ann", "crew")
    armed = "SELECT armed_rev('crew', now())"
    await pool.execute(_AUDIT, "ann", "set_limits", "{}")
    assert await pool.fetchval(armed) == 0
    await pool.execute(_AUDIT, "ann", "credit_pack", "{}")
    assert await pool.fetchval(armed) > 0


async def test_all_of_the_allowance_is_exhausted_only_where_no_pack_is_left(
    ledger: PostgresLedger, pool: Pool
) -> None:
    await pool.execute(_PACK, 99)
    await book(ledger, crossing(100, 1))
    assert await told(pool) == [("ann", "crossing", 100)]
    await pool.execute("UPDATE packs SET spent_tokens = 100")
    await book(ledger, crossing(100, 2, period_ms=NOVEMBER_MS - 86_400_000))
    assert await told(pool) == [("ann", "crossing", 100), ("ann", "exhausted", 0)]


async def test_of_many_first_refusals_and_the_last_token_one_is_noted(
    ledger: PostgresLedger, pool: Pool
) -> None:
    notices, now_ms = PostgresNotices(pool), int(time.time() * 1000) + 1
    refusal = Exhaustion("ann", "ann", NOVEMBER_MS, now_ms, {"used_tokens": 992})
    await asyncio.gather(*(notices.exhausted(refusal) for _ in range(10)))
    await book(ledger, crossing(100, 1))
    assert await told(pool) == [("ann", "exhausted", 0)]
    await pool.execute(_AUDIT, "ann", "credit_pack", "{}")
    await asyncio.sleep(0.01)
    after = Exhaustion("ann", "ann", NOVEMBER_MS, int(time.time() * 1000) + 1, {})
    await notices.exhausted(after)
    await notices.exhausted(after)
    assert await told(pool) == [("ann", "exhausted", 0)] * 2
