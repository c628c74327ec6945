"""The ledger on Postgres: what the drain and the hydration ask of the record.

Promises what `gateway.ports.ledger.Ledger` says; every call is one transaction, and a call that
raised LedgerUnavailable may be repeated with the same arguments. Refuses to know about Redis: it
is told what was read there.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.adapters.postgres.advisory_lock import AdvisoryLock
from gateway.adapters.postgres.booking import book_batch
from gateway.adapters.postgres.closing import close_periods
from gateway.adapters.postgres.connection import Pool, session, transaction
from gateway.adapters.postgres.from_records import packs_of
from gateway.adapters.postgres.statements import drain, reports
from gateway.core.event import LedgerRow
from gateway.core.quota.entitle import PACKS_MAX, LedgerSums
from gateway.ports.ledger import (
    GATEWAY_ALIVE_S,
    BookReply,
    Conflict,
    Cursor,
    DeadEntry,
    TakeBack,
    Watermark,
)


class PostgresLedger:
    """Fulfils the port `Ledger`. `url` is for the drainer's lock, which has its own connection."""

    def __init__(self, pool: Pool, url: str) -> None:
        self._pool = pool
        # Two drainers would be harmless (the ledger's key sees to that), only wasteful.
        self._lock = AdvisoryLock(url, drain.TRY_DRAIN_LOCK)
        self._begun_with: int | None = None

    async def lock_shards(self, shards: int) -> bool:
        held = not self._lock.lost()
        if not await self._lock.take():
            return False
        if held and shards == self._begun_with:
            return True  # it never changes, and asking for it writes
        async with session(self._pool) as connection:
            self._begun_with = await connection.fetchval(drain.SHARD_COUNT, shards)
        if self._begun_with != shards:
            self._lock.release()
            raise Conflict(
                f"the ledger was begun with {self._begun_with} shards, the configuration says "
                f"{shards} (redis.shards): set it to {self._begun_with}; another number would lose "
                "the way to what is still in the outbox"
            )
        return True

    def lock_lost(self) -> bool:
        return self._lock.lost()

    def unlock_shards(self) -> None:
        self._lock.release()

    async def cursors(self) -> dict[int, Cursor]:
        async with session(self._pool) as connection:
            found = await connection.fetch(drain.CURSORS)
        return {
            record["shard"]: Cursor(
                record["epoch"], record["cursor"], record["server_id"], record["raised_at"]
            )
            for record in found
        }

    async def note_server(self, shards: int, server_id: str) -> None:
        async with session(self._pool) as connection:
            await connection.execute(drain.NOTE_SERVER, shards, server_id)

    async def book(
        self, rows: Sequence[LedgerRow], dead: Sequence[DeadEntry], take_back: TakeBack
    ) -> BookReply:
        if not rows and not dead:
            return BookReply(booked=(), repeated=0, dead=0)
        async with transaction(self._pool) as connection:
            return await book_batch(connection, rows, dead, take_back)

    async def sums(
        self, payer: str, member: str | None, period_start_ms: int, until: Watermark
    ) -> LedgerSums | None:
        moment = (until.shard, until.epoch, until.stream_id)
        async with session(self._pool) as connection:
            found = await connection.fetchrow(
                drain.SUMS, payer, member, period_start_ms, *moment, PACKS_MAX
            )
        if found is None:
            return None
        return LedgerSums(
            settled_tokens=found["settled_tokens"],
            from_packs=found["from_packs"],
            adjusted_tokens=found["adjusted_tokens"],
            cost_nano_gbp=found["cost_nano_gbp"],
            rev=found["rev"],
            packs=packs_of(found["packs"]),
        )

    async def raise_epoch(self, shard: int, seen: int) -> tuple[int, str]:
        async with session(self._pool) as connection:
            (raised,) = await connection.fetch(drain.RAISE_EPOCH, shard, seen)
        return raised["epoch"], raised["cursor"]

    async def alive_gateways(self, me: str | None) -> Sequence[str]:
        async with session(self._pool) as connection:
            found = await connection.fetch(drain.ALIVE_GATEWAYS, me, GATEWAY_ALIVE_S)
        return [record["gateway_id"] for record in found]

    async def prepare_partitions(self, now_ms: int) -> None:
        async with transaction(self._pool) as connection:
            await connection.execute(drain.PREPARE_PARTITIONS, now_ms)

    async def used_by_tier(self, now_ms: int) -> dict[str, int]:
        async with session(self._pool) as connection:
            found = await connection.fetch(reports.USED_BY_TIER, now_ms)
        return {record["tier"]: record["used_tokens"] for record in found}

    async def close_periods(self, now_ms: int, rows_max: int) -> int:
        async with transaction(self._pool) as connection:
            return await close_periods(connection, now_ms, rows_max)
