"""Corrections by hand, on Postgres.

Promises what `gateway.ports.corrections.Corrections` says. Refuses to know how it was found that
the ledger lacks something.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.adapters.postgres.advisory_lock import AdvisoryLock
from gateway.adapters.postgres.booking import split_json
from gateway.adapters.postgres.connection import Pool, Rejected, transaction
from gateway.adapters.postgres.statements import corrections
from gateway.ports.corrections import HandCorrection
from gateway.ports.ledger import Conflict

# Longer than looking at every account takes; somebody whose machine is gone blocks no longer.
_IDLE_MS = 3_600_000


class PostgresCorrections:
    """Fulfils the port `Corrections`. `url` is for the lock, which has its own connection."""

    def __init__(self, pool: Pool, url: str) -> None:
        self._pool = pool
        self._url = url

    async def book(self, correction: HandCorrection) -> None:
        from_packs = sum(tokens for _, tokens in correction.pack_split)
        try:
            async with transaction(self._pool) as connection:
                await connection.execute(
                    corrections.BOOK,
                    correction.event_id, correction.period_start_ms, correction.payer,
                    correction.tier, correction.charged_tokens, from_packs,
                    split_json(correction.pack_split), correction.cost_nano_gbp,
                    correction.reason, correction.author,
                )  # fmt: skip
        except Rejected as error:
            raise Conflict(f"the correction cannot be booked: {error}") from error

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        lock = AdvisoryLock(self._url, corrections.TRY_REPAIR_LOCK, _IDLE_MS)
        try:
            if not await lock.take():
                raise Conflict("accounts are being repaired by somebody else: try again later")
            yield
        finally:
            lock.release()
