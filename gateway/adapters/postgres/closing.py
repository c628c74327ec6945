"""Closing periods: an entry with the figures of each payer's period, an hour after it ended.

Promises one entry for a payer and period, whoever closes it and however often: its id follows from
both. What is booked afterwards counts like any other entry. Refuses to know a clock.
"""

from __future__ import annotations

import hashlib
import logging

import asyncpg

from gateway.adapters.postgres.connection import Connection
from gateway.adapters.postgres.from_records import calendar_of
from gateway.adapters.postgres.statements import closing
from gateway.core.rid import derived_rid, make_rid

# Calls that were open at the end are mostly settled by then, and so in the figures.
_REST_MS = 3_600_000
_log = logging.getLogger("gateway.ledger")


async def close_periods(connection: Connection, now_ms: int, rows_max: int) -> int:
    """Close inside the caller's transaction; see Ledger.close_periods."""
    before_ms = now_ms - _REST_MS
    alike = await connection.fetch(closing.OPEN_PERIODS, before_ms, rows_max)
    ended = [
        (payer, each["period_start_ms"])
        for each in alike
        if _has_ended(each, before_ms)
        for payer in each["payers"]
    ][:rows_max]
    if not ended:
        return 0
    ids = [closing_id(payer, start_ms) for payer, start_ms in ended]
    payers, starts = zip(*ended, strict=True)
    booked: int = await connection.fetchval(closing.CLOSE, ids, payers, starts, now_ms)
    return booked


def _has_ended(period: asyncpg.Record, before_ms: int) -> bool:
    start_ms = period["period_start_ms"]
    try:
        return calendar_of(period).period_at(start_ms).end_ms <= before_ms
    except ValueError as error:  # keeps the periods of this calendar open, and no others
        _log.error("periods that began at %d ms cannot be closed: %s", start_ms, error)
        return False


def closing_id(payer: str, period_start_ms: int) -> str:
    """The id of the entry that closes a payer's period: a UUIDv7 at the period's start."""
    about = hashlib.blake2b(f"{payer}/{period_start_ms}".encode(), digest_size=10).digest()
    return derived_rid(make_rid(period_start_ms, about), "period_close")
