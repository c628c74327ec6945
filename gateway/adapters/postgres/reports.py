"""Reading the ledger as a whole: for finance, and for comparing it with other counts.

Promises bounded memory (entries come through a cursor on the server) and one snapshot for each
call. Never writes; refuses to know in what format the reader wants it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import asyncpg

from gateway.adapters.postgres.connection import Pool, session
from gateway.adapters.postgres.statements import reports

# Entries fetched at a time: some hundred kilobytes, a millisecond of the server.
_FETCH_ROWS = 500
# Until the first entry comes; grouping a whole year on a small server takes minutes.
_REPORT_S = 600.0


@dataclass(frozen=True, slots=True)
class ExportFilter:
    """Which entries to export. None: no limit. `from_ms` belongs to the range, `until_ms` not."""

    after_event_id: str | None = None
    user_id: str | None = None
    from_ms: int | None = None
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class UserUsage:
    """One user's entries of one period, summed. `qualities` and `outcomes` count usage entries
    and corrections; `adjusted_tokens` are the adjustments by people."""

    user_id: str
    payer: str
    period_start_ms: int
    rows: int
    charged_tokens: int
    adjusted_tokens: int
    prompt_tokens: int
    output_tokens: int
    cost_nano_gbp: int
    qualities: Mapping[str, int]
    outcomes: Mapping[str, int]


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

    async def usage_by_user(self) -> Sequence[UserUsage]:
        """Sums per user and period, over the whole ledger."""
        async with session(self._pool) as connection, connection.transaction(readonly=True):
            await connection.execute(reports.READ_LONG)
            cells = await connection.fetch(reports.USAGE, timeout=_REPORT_S)
        return [
            _sum_cells(owner, list(group))
            for owner, group in groupby(
                cells, key=lambda cell: (cell["user_id"], cell["payer"], cell["period_start_ms"])
            )
        ]

    async def charges(self, after_event_id: str | None, rows_max: int) -> Sequence[Charge]:
        """The next entries after `after_event_id` (None: from the first), at most `rows_max`."""
        async with session(self._pool) as connection:
            found = await connection.fetch(reports.CHARGES, after_event_id, rows_max)
        return [Charge(**record) for record in found]


def _sum_cells(owner: tuple[str, str, int], cells: Sequence[asyncpg.Record]) -> UserUsage:
    user_id, payer, period_start_ms = owner
    usage = [cell for cell in cells if cell["kind"] != "adjustment"]
    return UserUsage(
        user_id=user_id,
        payer=payer,
        period_start_ms=period_start_ms,
        rows=_sum(cells, "rows"),
        charged_tokens=_sum(usage, "charged_tokens"),
        adjusted_tokens=_sum(cells, "charged_tokens") - _sum(usage, "charged_tokens"),
        prompt_tokens=_sum(usage, "prompt_tokens"),
        output_tokens=_sum(usage, "output_tokens"),
        cost_nano_gbp=_sum(usage, "cost_nano_gbp"),
        qualities=_count_by(usage, "quality"),
        outcomes=_count_by(usage, "outcome"),
    )


def _sum(cells: Iterable[asyncpg.Record], column: str) -> int:
    return sum(cell[column] for cell in cells)


def _count_by(cells: Iterable[asyncpg.Record], column: str) -> Mapping[str, int]:
    counts: Counter[str] = Counter()
    for cell in cells:
        counts[cell[column]] += cell["rows"]
    return counts
