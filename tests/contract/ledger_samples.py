"""Ledger rows for tests (one call of `sample_row` is one call of a user), teams, doubles, and
waiting."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from gateway.adapters.postgres.connection import Pool
from gateway.core.event import LedgerRow, UsageEvent
from gateway.core.period import Calendar
from gateway.core.rid import make_rid

NOVEMBER_MS = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp() * 1000)
OCTOBER_MS = int(datetime(2026, 10, 1, tzinfo=UTC).timestamp() * 1000)
FIRST_UTC = Calendar(1, "UTC")
_EVENT_FIELDS = frozenset(UsageEvent.__struct_fields__)
# In both, and usually equal.
_SHARED = {"event_id", "charged_tokens", "cost_nano_gbp"}


def sample_row(stream_id: str = "1-0", **changes: Any) -> LedgerRow:
    """A measured call of user `ann` for 30 tokens, with `changes` to the row or its event."""
    rid = make_rid(NOVEMBER_MS, os.urandom(10))
    event: dict[str, Any] = {
        "event_id": rid, "payer": "ann", "user_id": "ann", "tier": "free",
        "route": "chat.completions", "model": "gpt-4o-mini", "price_id": "2026-11",
        "charged_tokens": 30, "cost_nano_gbp": 700, "quality": "measured", "outcome": "done",
        "prompt_tokens": 10, "output_tokens": 20, "status": 200,
    }  # fmt: skip
    row: dict[str, Any] = {
        "event_id": rid, "kind": "usage", "corrects": None, "period_ms": NOVEMBER_MS,
        "at_ms": int(stream_id.split("-")[0]), "charged_tokens": 30, "cost_nano_gbp": 700,
        "held_tokens": 100, "from_allowance": 30, "from_packs": 0, "overdraft_tokens": 0,
        "shard": 0, "epoch": 1, "stream_id": stream_id, "account_seq": 1,
    }  # fmt: skip
    for name, value in changes.items():
        if name in _EVENT_FIELDS:
            event[name] = value
        if name in _SHARED or name not in _EVENT_FIELDS:
            row[name] = value
    return LedgerRow(event=UsageEvent(**event), **row)


async def join_team(pool: Pool, user_id: str, payer: str) -> None:
    """From now on `payer` is charged for what the user calls."""
    await pool.execute("UPDATE users SET payer = $2 WHERE user_id = $1", user_id, payer)


async def no_doubles(rows: Sequence[LedgerRow]) -> None:
    """For bookings in which nothing was counted twice."""
    raise AssertionError(f"there is nothing to take back, not even {rows}")


class TakenBack:
    """Notes what is handed over to be taken back; `trouble` is raised instead of returning."""

    def __init__(self, trouble: BaseException | None = None) -> None:
        self.calls: list[list[LedgerRow]] = []
        self.trouble = trouble

    async def __call__(self, rows: Sequence[LedgerRow]) -> None:
        self.calls.append(list(rows))
        if self.trouble is not None:
            raise self.trouble


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    """Wait for what another process does; TimeoutError after ten seconds."""
    async with asyncio.timeout(10):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.01)
