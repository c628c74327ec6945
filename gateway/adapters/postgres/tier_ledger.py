"""What the ledger knows of capped tiers, on Postgres.

Promises what `gateway.ports.tier_shares.TierLedger` says. Refuses to know what a cap is.
"""

from __future__ import annotations

from gateway.adapters.postgres.connection import Pool, session
from gateway.adapters.postgres.statements import tiers
from gateway.ports.ledger import Watermark


class PostgresTierLedger:
    """Fulfils the port `TierLedger`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def next_round(self) -> int:
        async with session(self._pool) as connection:
            number: int = await connection.fetchval(tiers.NEXT_ROUND)
        return number

    async def settled_before(self, tier: str, period_start_ms: int, until: Watermark) -> int | None:
        async with session(self._pool) as connection:
            found: int | None = await connection.fetchval(
                tiers.SETTLED_BEFORE,
                tier,
                period_start_ms,
                until.shard,
                until.epoch,
                until.stream_id,
            )
        return found
