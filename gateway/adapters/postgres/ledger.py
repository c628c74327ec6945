"""The ledger on Postgres: what the drain and the hydration ask of the record.

Promises what `gateway.ports.ledger.Ledger` says; every call is one transaction, and a call that
raised LedgerUnavailable may be repeated with the same arguments. Refuses to know about Redis: it
is told what was read there.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.adapters.postgres import statements
from gateway.adapters.postgres.booking import book_batch
from gateway.adapters.postgres.connection import Pool, session, transaction
from gateway.adapters.postgres.shard_lock import ShardLock
from gateway.core.event import LedgerRow
from gateway.ports.ledger import BookReply, Conflict, DeadEntry
from gateway.ports.quota_store import LedgerSums


class PostgresLedger:
    """Fulfils the port `Ledger`. `url` is for the drainer's lock, which has its own connection."""

    def __init__(self, pool: Pool, url: str) -> None:
        self._pool = pool
        self._lock = ShardLock(url)

    async def lock_shards(self, shards: int) -> bool:
        if not await self._lock.take():
            return False
        async with session(self._pool) as connection:
            begun_with = await connection.fetchval(statements.SHARD_COUNT, shards)
        if begun_with != shards:
            self._lock.release()
            raise Conflict(
                f"the ledger was begun with {begun_with} shards, the configuration says {shards} "
                f"(redis.shards): set it to {begun_with}; another number would lose the way to "
                "what is still in the outbox"
            )
        return True

    def lock_lost(self) -> bool:
        return self._lock.lost()

    def unlock_shards(self) -> None:
        self._lock.release()

    async def cursors(self) -> dict[int, tuple[int, str]]:
        async with session(self._pool) as connection:
            found = await connection.fetch(statements.CURSORS)
        return {record["shard"]: (record["epoch"], record["cursor"]) for record in found}

    async def book(self, rows: Sequence[LedgerRow], dead: Sequence[DeadEntry]) -> BookReply:
        if not rows and not dead:
            return BookReply(booked=(), repeated=0, dead=0)
        async with transaction(self._pool) as connection:
            return await book_batch(connection, rows, dead)

    async def sums(
        self, payer: str, period_start_ms: int, shard: int, epoch: int, stream_id: str
    ) -> LedgerSums | None:
        async with session(self._pool) as connection:
            found = await connection.fetchrow(
                statements.SUMS, payer, period_start_ms, shard, epoch, stream_id
            )
        return None if found is None else LedgerSums(**found)

    async def raise_epoch(self, shard: int, seen: int) -> tuple[int, str]:
        async with session(self._pool) as connection:
            (raised,) = await connection.fetch(statements.RAISE_EPOCH, shard, seen)
        return raised["epoch"], raised["cursor"]

    async def prepare_partitions(self, now_ms: int) -> None:
        async with transaction(self._pool) as connection:
            await connection.execute(statements.PREPARE_PARTITIONS, now_ms)

    async def used_by_tier(self, now_ms: int) -> dict[str, int]:
        async with session(self._pool) as connection:
            found = await connection.fetch(statements.USED_BY_TIER, now_ms)
        return {record["tier"]: record["used_tokens"] for record in found}
