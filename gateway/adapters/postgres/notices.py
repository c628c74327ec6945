"""What people are to be told of, written to Postgres.

Promises what `gateway.ports.notices` says, and for the drain that a crossing is noted in
the transaction that books its entry. Refuses to know who wants to be told, and how.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from gateway.adapters.postgres.connection import Connection, Pool, session
from gateway.adapters.postgres.statements import notices
from gateway.core.event import LedgerRow
from gateway.ports.notices import Alarm, Exhaustion, Wish

_DAY_MS = 86_400_000


class PostgresNotices:
    """Fulfils the ports `Notices` and `Alarms`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def exhausted(self, told: Exhaustion) -> None:
        async with session(self._pool) as connection:
            await connection.execute(
                notices.EXHAUSTED,
                told.user_id,
                told.payer,
                told.period_start_ms,
                told.at_ms,
                json.dumps(told.facts),
            )

    async def alarm(self, alarm: Alarm) -> None:
        day_ms = alarm.at_ms - alarm.at_ms % _DAY_MS
        async with session(self._pool) as connection:
            await connection.execute(
                notices.ALARM,
                day_ms if alarm.since_ms is None else alarm.since_ms,
                alarm.kind,
                alarm.about,
                alarm.at_ms,
                json.dumps(alarm.facts),
            )

    async def wishes(self, user_id: str) -> Mapping[Wish, bool]:
        async with session(self._pool) as connection:
            found = await connection.fetch(notices.WISHES, user_id)
        return {(record["kind"], record["channel"]): record["enabled"] for record in found}

    async def wish(self, user_id: str, wishes: Mapping[Wish, bool]) -> None:
        kinds, channels = [kind for kind, _ in wishes], [channel for _, channel in wishes]
        async with session(self._pool) as connection:
            await connection.execute(notices.WISH, user_id, kinds, channels, list(wishes.values()))


async def note_crossings(connection: Connection, booked: Sequence[LedgerRow]) -> None:
    """Inside the caller's transaction, of entries that are new."""
    crossed = [row for row in booked if row.crossed_percent]
    if crossed:
        await connection.execute(
            notices.CROSSED,
            [row.event.payer for row in crossed],
            [row.period_ms for row in crossed],
            [row.crossed_percent for row in crossed],
            [row.at_ms for row in crossed],
            [row.event.tier for row in crossed],
        )
