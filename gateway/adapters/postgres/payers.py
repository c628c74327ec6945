"""Payers, read from Postgres in small portions.

Promises that a portion costs a range of an index, however large the ledger is. Refuses to know why
somebody asks.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from gateway.adapters.postgres.connection import Pool, session
from gateway.adapters.postgres.statements import payers


class PostgresPayers:
    """Fulfils the port `Payers`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def lately(self, from_ms: int, until_ms: int, rows_max: int) -> Sequence[str]:
        async with session(self._pool) as connection:
            found = await connection.fetch(
                payers.LATELY, _first_id(from_ms), _first_id(until_ms), rows_max
            )
        return [record["payer"] for record in found]

    async def behind(self, payer: str, rows_max: int) -> Sequence[str]:
        async with session(self._pool) as connection:
            found = await connection.fetch(payers.BEHIND, payer, rows_max)
        return [record["user_id"] for record in found]


def _first_id(ms: int) -> str:
    """Below every id that was made at that time or later."""
    return str(uuid.UUID(int=ms << 80))
