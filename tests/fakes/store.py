"""The real quota store over fakeredis, and troubles laid around its calls.

The scripts and their adapter are the product's own; only the server is imitated. A trouble is what
a network does: a call that never arrives, or one whose reply is lost.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeVar

from fakeredis import FakeServer
from fakeredis.aioredis import FakeAsyncRedisConnection, FakeRedis
from redis.asyncio.connection import BlockingConnectionPool

from gateway.adapters.redis_store.calls import Calls
from gateway.adapters.redis_store.quota_store import RedisQuotaStore
from gateway.adapters.redis_store.scripts import load_scripts, lua_folder
from gateway.adapters.redis_store.streams import RedisStreams
from gateway.ports.quota_store import (
    EntitleCode,
    Entitlement,
    Hydration,
    LapsedHold,
    LedgerSums,
    ReserveAsk,
    ReserveReply,
    Settlement,
    SettleReply,
    Snapshot,
    StoreUnavailable,
)

SHARDS = 2
Trouble = Literal["never arrives", "reply lost", ""]
_T = TypeVar("_T")
_SCRIPTS = load_scripts(lua_folder(), shebang=False)


class FakeStores:
    """One imitated server with what reads and writes it."""

    def __init__(self) -> None:
        server = FakeServer()
        self.client: Any = FakeRedis(server=server, protocol=2)
        self.connections: Any = BlockingConnectionPool(
            connection_class=FakeAsyncRedisConnection,
            server=server,
            max_connections=16,
            timeout=5,
            # As the product has it: with a timeout of its own, redis-py waits in a way that loses a
            # cancellation on Python 3.11.
            socket_timeout=None,
        )
        calls = Calls(self.connections, 5.0, lambda script, seconds: None)
        self.store = TroubledStore(RedisQuotaStore(calls, _SCRIPTS, SHARDS))
        self.streams = RedisStreams(self.client, SHARDS)


@asynccontextmanager
async def fake_stores() -> AsyncIterator[FakeStores]:
    stores = FakeStores()
    yield stores
    await stores.client.aclose()
    await stores.connections.disconnect()


class TroubledStore:
    """Fulfils ports.quota_store.QuotaStore by passing every call on, but for the troubles laid.

    `asked` names all calls, `sent` has the settlements that reached the server's socket, `journal`
    (shared with an answer) what was sent when. `pause` is awaited before and after each call.
    """

    def __init__(self, store: RedisQuotaStore) -> None:
        self._store = store
        self.asked: list[str] = []
        self.asks: list[ReserveAsk] = []
        self.sent: list[Settlement] = []
        self.journal: list[str] = []
        self.away = False
        self.troubles: dict[str, deque[Trouble | Exception]] = {}
        self.pause: Callable[[str], Coroutine[Any, Any, None]] | None = None

    def trouble(self, name: str, kind: Trouble | Exception) -> None:
        """What happens to the next call of that name that nothing was laid for yet."""
        self.troubles.setdefault(name, deque()).append(kind)

    async def _pass(self, name: str, call: Coroutine[Any, Any, _T]) -> _T:
        kind = self._next(name)
        try:
            await self._wait(f"before {name}")
        except asyncio.CancelledError:
            call.close()
            raise
        if kind == "never arrives":
            call.close()
            raise StoreUnavailable(f"{name} never arrived")
        result = await call
        await self._wait(f"after {name}")
        _raise(name, kind)
        return result

    def _next(self, name: str) -> Trouble | Exception:
        self.asked.append(name)
        if self.away:
            return "never arrives"
        laid = self.troubles.get(name)
        return laid.popleft() if laid else ""

    async def _wait(self, where: str) -> None:
        if self.pause is not None:
            await self.pause(where)

    async def reserve(self, ask: ReserveAsk) -> ReserveReply:
        self.asks.append(ask)
        return await self._pass("reserve", self._store.reserve(ask))

    async def extend(self, payer: str, rid: str, progress_tokens: int, lease_ms: int) -> bool:
        call = self._store.extend(payer, rid, progress_tokens, lease_ms)
        return await self._pass("extend", call)

    async def settle(self, settlement: Settlement) -> Coroutine[Any, Any, SettleReply]:
        kind = self._next("settle")
        if kind == "never arrives":
            raise StoreUnavailable("settle never arrived")
        reply = await self._store.settle(settlement)
        self.sent.append(settlement)
        self.journal.append(settlement.kind)

        async def read() -> SettleReply:
            found = await reply
            _raise("settle", kind)
            return found

        return read()

    async def expire(self, lapsed: LapsedHold, settlement: Settlement) -> SettleReply:
        self.sent.append(settlement)
        return await self._pass("expire", self._store.expire(lapsed, settlement))

    async def entitle(self, entitlement: Entitlement, period_end_ms: int) -> EntitleCode:
        return await self._pass("entitle", self._store.entitle(entitlement, period_end_ms))

    async def hydrate_begin(
        self, payer: str, period_start_ms: int, period_end_ms: int
    ) -> Hydration | None:
        call = self._store.hydrate_begin(payer, period_start_ms, period_end_ms)
        return await self._pass("hydrate_begin", call)

    async def hydrate_finish(self, payer: str, hydration: Hydration, sums: LedgerSums) -> bool:
        call = self._store.hydrate_finish(payer, hydration, sums)
        return await self._pass("hydrate_finish", call)

    async def snapshot(self, payer: str) -> Snapshot | None:
        return await self._pass("snapshot", self._store.snapshot(payer))

    async def epoch(self, shard: int) -> int:
        return await self._pass("epoch", self._store.epoch(shard))

    async def open_shard(self, shard: int, epoch: int, cursor: str) -> int:
        return await self._pass("open_shard", self._store.open_shard(shard, epoch, cursor))


def _raise(name: str, kind: Trouble | Exception) -> None:
    if isinstance(kind, Exception):
        raise kind
    if kind == "reply lost":
        raise StoreUnavailable(f"the reply to {name} was lost")
