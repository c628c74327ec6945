"""The History port on Postgres.

Promises one snapshot for both readings, two seconds for each, and that only a few of them run at
once: people who look at a page must not keep the drain waiting for a connection.
"""

from __future__ import annotations

import asyncio

from gateway.adapters.postgres.connection import Pool, Rejected, session
from gateway.adapters.postgres.statements import history
from gateway.ports.history import Charge, DayUse, HistoryAsk, HistoryUnavailable, PeriodHistory
from gateway.ports.ledger import LedgerUnavailable

_AT_ONCE_MAX = 1  # of the four connections that a process has
_WAIT_S = 3.0


class PostgresHistory:
    """Fulfils ports.history.History."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._turns = asyncio.Semaphore(_AT_ONCE_MAX)

    async def of_period(self, ask: HistoryAsk) -> PeriodHistory:
        try:
            async with asyncio.timeout(_WAIT_S), self._turns:
                return await self._read(ask)
        except TimeoutError as error:
            raise HistoryUnavailable("the ledger has much to do; try again later") from error
        except (LedgerUnavailable, Rejected) as error:
            raise HistoryUnavailable("the ledger does not answer; try again later") from error

    async def _read(self, ask: HistoryAsk) -> PeriodHistory:
        whose = (ask.payer, ask.period_start_ms, ask.user_id)
        async with (
            session(self._pool) as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            await connection.execute(history.READ_SHORT)
            days = await connection.fetch(history.DAYS, *whose, ask.zone)
            charges = await connection.fetch(history.LAST_CHARGES, *whose, ask.charges_max)
        return PeriodHistory(
            [DayUse(**record) for record in days], [Charge(**record) for record in charges]
        )
