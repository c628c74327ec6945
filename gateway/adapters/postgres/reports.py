"""Reading the ledger as a whole: for finance, and for comparing it with other counts.

Promises bounded memory (entries come through a cursor on the server) and one snapshot for each
call. Never writes; refuses to know in what format the reader wants it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from gateway.adapters.postgres.connection import Pool, session
from gateway.adapters.postgres.statements import reports
from gateway.core.reconciling import Booked

# Entries fetched at a time: some hundred kilobytes, a millisecond of the server.
_FETCH_ROWS = 500
# Until the first entry comes; sorting years on a small server takes minutes.
_REPORT_S = 600.0


@dataclass(frozen=True, slots=True)
class ExportFilter:
    """Which entries to export. None: no limit. `from_ms` belongs to the range, `until_ms` not."""

    after_event_id: str | None = None
    user_id: str | None = None
    from_ms: int | None = None
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Charge:
    """What one entry charged. `rid` is the request's; a correction has the rid of what it mends."""

    event_id: str
    rid: str
    user_id: str
    prompt_tokens: int
    output_tokens: int
    charged_tokens: int
    quality: str
    outcome: str


class PostgresReports:
    """The read side of the ledger."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def export(self, wanted: ExportFilter) -> AsyncGenerator[dict[str, object], None]:
        """Entries in the order of their ids, as the ledger's columns: instants in RFC 3339 (UTC),
        money in nano-GBP. The next export may go on after the last `event_id`."""
        async with (
            session(self._pool) as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            await connection.execute(reports.READ_LONG)
            entries = connection.cursor(
                reports.EXPORT,
                wanted.after_event_id,
                wanted.user_id,
                wanted.from_ms,
                wanted.until_ms,
                prefetch=_FETCH_ROWS,
                timeout=_REPORT_S,
            )
            async for entry in entries:
                yield dict(entry)

    async def charges(self, after_event_id: str | None, rows_max: int) -> Sequence[Charge]:
        """The next entries after `after_event_id` (None: from the first), at most `rows_max`."""
        async with session(self._pool) as connection:
            found = await connection.fetch(reports.CHARGES, after_event_id, rows_max)
        return [Charge(**record) for record in found]

    async def booked(self, from_ms: int, until_ms: int) -> Sequence[Booked]:
        """What was used and what it cost, by UTC day, model, price and standing. Reads the months
        that the range touches."""
        async with (
            session(self._pool) as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            await connection.execute(reports.READ_LONG)
            found = await connection.fetch(
                reports.BOOKED_BY_DAY, from_ms, until_ms, timeout=_REPORT_S
            )
        return [Booked(**record) for record in found]

    async def pack_faults(self) -> Sequence[str]:
        """Where packs, refunds and their entries contradict each other, in words; none is well.
        Reads the ledger as a whole."""
        async with (
            session(self._pool) as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            await connection.execute(reports.READ_LONG)
            found = await connection.fetch(reports.PACK_FAULTS, timeout=_REPORT_S)
        return [
            f"{record['payer']}: pack {record['pack_id']} of {record['payment_ref']}: "
            f"{record['fault']}"
            for record in found
        ]
