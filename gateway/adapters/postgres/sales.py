"""Packs that were sold, on Postgres: lists, refunds, and what is reclaimed after them.

Promises what `gateway.ports.sales.Sales` says: a pack is taken back once, and what it had paid is
booked to the token, however late the ledger hears of it. Refuses to know why a pack is refunded.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.adapters.postgres.connection import Connection, Pool, session
from gateway.adapters.postgres.from_records import identity_of
from gateway.adapters.postgres.grants import identity_within, locked_owner
from gateway.adapters.postgres.statements import directory, sales
from gateway.core.identity import Identity
from gateway.ports.ledger import Unknown
from gateway.ports.sales import Refund, SoldPack


class PostgresSales:
    """Fulfils the port `Sales`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def packs(self, payer: str) -> Sequence[SoldPack]:
        async with session(self._pool) as connection:
            return [SoldPack(**record) for record in await connection.fetch(sales.PACKS, payer)]

    async def pack_of(self, payment_ref: str) -> SoldPack | None:
        async with session(self._pool) as connection:
            found = await connection.fetchrow(sales.PACK_OF, payment_ref)
        return None if found is None else SoldPack(**found)

    async def refund(self, refund: Refund) -> Identity:
        payer = await self._payer_of(refund.payment_ref)
        if payer is None:
            raise Unknown(f"nothing was credited for the payment {refund.payment_ref!r}")
        async with locked_owner(self._pool, payer, "the refund") as (connection, _):
            await take_back_within(connection, payer, refund)
            return await identity_within(connection, payer)

    async def reclaim(self, payment_ref: str, event_id: str) -> Identity | None:
        payer = await self._payer_of(payment_ref)
        if payer is None:
            return None
        async with locked_owner(self._pool, payer, "the adjustment") as (connection, _):
            tokens = await connection.fetchval(sales.TO_RECLAIM, payment_ref)
            if not tokens:
                return None
            period_ms = await _period_ms(connection, payer)
            await connection.execute(sales.RECLAIM, event_id, payment_ref, tokens, period_ms)
            return await identity_within(connection, payer)

    async def reclaimable(self, rows_max: int) -> Sequence[str]:
        async with session(self._pool) as connection:
            found = await connection.fetch(sales.RECLAIMABLE, rows_max)
        return [record["payment_ref"] for record in found]

    async def _payer_of(self, payment_ref: str) -> str | None:
        async with session(self._pool) as connection:
            payer: str | None = await connection.fetchval(sales.PAYER_OF, payment_ref)
        return payer


async def take_back_within(connection: Connection, payer: str, asked: Refund) -> bool:
    """Whether a pack was taken back: False when there is none, or it was refunded before. Within
    the caller's transaction, which has locked the payer."""
    period_ms = await _period_ms(connection, payer)
    taken = await connection.fetchval(
        sales.TAKE_BACK, asked.event_id, asked.payment_ref, asked.reason, asked.author, period_ms
    )
    return bool(taken)


async def _period_ms(connection: Connection, payer: str) -> int:
    """When the payer's own period began that runs now: a pack stays with who bought it, also when
    that user is in a team by now."""
    now_ms = await connection.fetchval(sales.NOW_MS)
    (owner,) = await connection.fetch(directory.AS_PAYER, payer)
    return identity_of(owner).calendar.period_at(now_ms).start_ms
