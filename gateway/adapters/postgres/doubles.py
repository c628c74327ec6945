"""Rows whose ids were booked before, from another entry of the outbox: Redis counted them twice.

Promises to tell what Redis has counted too much, the same however often it is asked. Usually that
is the whole row. Where the ledger has a mere estimate, because the hold had expired, it is as much
as that, and the difference is to be booked. Books nothing itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg

from gateway.adapters.postgres.connection import Connection
from gateway.adapters.postgres.statements import drain
from gateway.core.event import LedgerRow
from gateway.core.hold import is_expiry
from gateway.core.late import BookedExpiry, Late, settled_late, settles


@dataclass(frozen=True, slots=True)
class Double:
    """A row that was counted twice; `late` where it settles a hold that is booked as expired."""

    row: LedgerRow
    late: Late | None


@dataclass(frozen=True, slots=True)
class _Found:
    """What is booked under the id of a row."""

    origin: tuple[int, str]
    expiry: BookedExpiry | None


async def counted_twice(connection: Connection, known: Sequence[LedgerRow]) -> list[Double]:
    """Of rows whose ids are booked: those that were booked from another entry of the outbox."""
    found = await _booked_as(connection, known)
    return [
        Double(row, settled_late(row, at.expiry) if at.expiry and settles(row) else None)
        for row in known
        if (at := found.get((row.event_id, row.period_ms))) and at.origin != _origin(row)
    ]


def corrections(doubles: Sequence[Double]) -> list[LedgerRow]:
    """What is to be booked of them, each once: an id that is booked already changes nothing."""
    return [double.late.correction for double in doubles if double.late]


async def excess(connection: Connection, doubles: Sequence[Double]) -> list[LedgerRow]:
    """What Redis is to take back, once the corrections are booked. Of several entries that settle
    one hold the ledger counts the one its correction came from; the others are wholly too much."""
    late_rows = corrections(doubles)
    found = await _booked_as(connection, late_rows) if late_rows else {}
    too_much = []
    for row, late in ((double.row, double.late) for double in doubles):
        at = late and found.get((late.correction.event_id, row.period_ms))
        if late is None or at is None or at.origin != _origin(row):
            too_much.append(row)
        elif late.excess.charged_tokens:  # an answer of which nothing was booked was counted once
            too_much.append(late.excess)
    return too_much


async def _booked_as(
    connection: Connection, rows: Sequence[LedgerRow]
) -> dict[tuple[str, int], _Found]:
    found = await connection.fetch(
        drain.BOOKED_AS,
        [row.event_id for row in rows],
        [datetime.fromtimestamp(row.period_ms / 1000, UTC) for row in rows],
    )
    return {
        (record["event_id"], record["period_ms"]): _Found(
            (record["epoch"], record["stream_id"]), _expiry_of(record)
        )
        for record in found
    }


def _expiry_of(record: asyncpg.Record) -> BookedExpiry | None:
    if not is_expiry(record["quality"], record["outcome"], record["stream"]):
        return None
    return BookedExpiry(
        charged_tokens=record["charged_tokens"],
        cost_nano_gbp=record["cost_nano_gbp"],
        held_tokens=record["held_tokens"],
        pack_split=tuple(json.loads(record["pack_split"] or "{}").items()),
    )


def _origin(row: LedgerRow) -> tuple[int, str]:
    return row.epoch, row.stream_id
