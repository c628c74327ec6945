"""Pages of people, keys, the audit and the ledger, on Postgres.

Promises what `gateway.ports.listings.Listings` says, and that no page needs more memory than its
rows. Refuses to know how a page is shown or how its cursor is written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from gateway.adapters.postgres.connection import Pool, session
from gateway.adapters.postgres.statements import listings
from gateway.ports.listings import (
    AuditAsked,
    AuditRow,
    EntryRow,
    KeyRow,
    PeopleAsked,
    PersonRow,
    UsageAsked,
    UsageRow,
    Whose,
)


class PostgresListings:
    """Fulfils the port `Listings`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def person(self, user_id: str) -> PersonRow | None:
        found = await self.persons((user_id,))
        return found[0] if found else None

    async def persons(self, user_ids: Sequence[str]) -> Sequence[PersonRow]:
        async with session(self._pool) as connection:
            found = await connection.fetch(listings.PERSONS, user_ids)
        return [PersonRow(**record) for record in found]

    async def booked_tokens(self, event_ids: Sequence[str]) -> dict[str, int]:
        async with session(self._pool) as connection:
            found = await connection.fetch(listings.BOOKED_TOKENS, event_ids)
        return {record["event_id"]: record["charged_tokens"] for record in found}

    async def people(self, asked: PeopleAsked) -> Sequence[PersonRow]:
        async with session(self._pool) as connection:
            found = await connection.fetch(
                listings.PEOPLE,
                asked.rows_max, asked.after, asked.prefix, asked.is_team, asked.team,
            )  # fmt: skip
        return [PersonRow(**record) for record in found]

    async def keys(self, user_id: str) -> Sequence[KeyRow]:
        async with session(self._pool) as connection:
            return [KeyRow(**record) for record in await connection.fetch(listings.KEYS, user_id)]

    async def audit(self, asked: AuditAsked) -> Sequence[AuditRow]:
        async with session(self._pool) as connection:
            found = await connection.fetch(
                listings.AUDIT, asked.rows_max, asked.before, asked.user_id, asked.who, asked.what
            )
        rows = [dict(record) for record in found]
        return [AuditRow(**row | {"detail": json.loads(row["detail"])}) for row in rows]

    async def usage(self, whose: Whose, asked: UsageAsked) -> Sequence[UsageRow]:
        period_ms, name = asked.after or (None, None)
        async with session(self._pool) as connection:
            found = await connection.fetch(
                listings.USAGE,
                period_ms, name, asked.by, whose.payers, whose.user_id, asked.rows_max,
            )  # fmt: skip
        return [UsageRow(**record) for record in found]

    async def entries(
        self, whose: Whose, rows_max: int, before: tuple[str, int] | None
    ) -> Sequence[EntryRow]:
        event_id, period_ms = before or (None, None)
        async with session(self._pool) as connection:
            found = await connection.fetch(
                listings.ENTRIES, event_id, period_ms, whose.payers, whose.user_id, rows_max
            )
        return [EntryRow(**record) for record in found]
