"""The real quota store over fakeredis, and troubles laid around its calls.

The scripts and their adapter are the product's own; only the server is imitated. A trouble is what
a network does (a call that never arrives, or one whose reply is lost) or what befalls a server: it
is emptied, goes back to what it was, or is another process than before.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeVar

from fakeredis import FakeServer
from fakeredis.aioredis import FakeAsyncRedisConnection, FakeRedis
from redis.asyncio.connection import BlockingConnectionPool

from gateway.adapters.redis_store.answers import RedisAnswers
from gateway.adapters.redis_store.leases import RedisLeases
from gateway.adapters.redis_store.plain_calls import PlainCalls
from gateway.adapters.redis_store.quota_store import RedisQuotaStore
from gateway.adapters.redis_store.scripts import load_scripts, lua_folder
from gateway.adapters.redis_store.streams import RedisStreams
from gateway.core.quota.entitle import (
    Entitlement,
    EntitleReply,
    FinishCode,
    Hydration,
    LedgerSums,
    Snapshot,
)
from gateway.core.quota.reassert import OpenCall, ReassertReply
from gateway.core.quota.reserve import ReserveAsk, ReserveReply
from gateway.core.quota.settle import Correction, LapsedHold, Settlement, SettleReply
from gateway.ports.quota_store import ShardState, StoreNotAsked, StoreUnavailable
from gateway.ports.tasks import spawn
from tests.fakes.stepped import turn

SHARDS = 2
Trouble = Literal["never arrives", "reply lost", ""]
_T = TypeVar("_T")
_SCRIPTS = load_scripts(lua_folder(), shebang=False)


class FakeStores:
    """One imitated server with what reads and writes it."""

    def __init__(self) -> None:
        self._server: Any = FakeServer()
        self.client: Any = FakeRedis(server=self._server, protocol=2)
        connection: Any = _far_connection  # whatever makes one does for a class
        self.connections: Any = BlockingConnectionPool(
            connection_class=connection,
            server=self._server,
            max_connections=16,
            timeout=5,
            # As the product has it: with a timeout of its own, redis-py waits in a way that loses a
            # cancellation on Python 3.11.
            socket_timeout=None,
        )
        calls = PlainCalls(self.connections, 5.0, lambda script, seconds: None)
        self.store = TroubledStore(RedisQuotaStore(calls, _SCRIPTS, SHARDS))
        self.answers = RedisAnswers(calls, _SCRIPTS["keep"], SHARDS)
        self.streams = FakeStreams(self.client, SHARDS)
        self.leases = RedisLeases(self.client, SHARDS)

    def saved(self) -> Any:
        """All that the server has by now, for `go_back`."""
        return copy.deepcopy(self._data)

    def go_back(self, saved: Any) -> None:
        """The server comes up again without what it had not saved, as another process."""
        self._data.clear()
        self._data.update(copy.deepcopy(saved))
        self.streams.run_id += "+"

    @property
    def connections_lost(self) -> int:
        """Connections that nobody gave back to the pool."""
        return len(self.connections._in_use_connections)

    @property
    def _data(self) -> Any:
        return self._server.dbs[0]._dict


def _far_connection(**options: Any) -> Any:
    """A connection on which what is sent and what is read takes its turn, as over a network."""
    connection: Any = FakeAsyncRedisConnection(**options)
    send, read = connection.send_command, connection.read_response

    async def send_command(*args: Any, **how: Any) -> None:
        await turn()
        await send(*args, **how)
        await turn()

    async def read_response(**how: Any) -> Any:
        await turn()
        return await read(**how)

    connection.send_command, connection.read_response = send_command, read_response
    return connection


class FakeStreams(RedisStreams):
    """The outbox; the two commands that fakeredis lacks, INFO and MEMORY, are left out."""

    run_id = "server"

    async def server_id(self) -> str:
        return self.run_id

    async def trim(self, shard: int, before_id: str, bytes_max: int, cursor: str) -> None:
        raise AssertionError("fakeredis cannot tell the size of a key")


@asynccontextmanager
async def fake_stores() -> AsyncIterator[FakeStores]:
    stores = FakeStores()
    yield stores
    await stores.client.aclose()
    await stores.connections.disconnect()


class TroubledStore:
    """Fulfils ports.quota_store.QuotaStore by passing every call on, but for the troubles laid.

    `asked` names all calls, `sent` has the settlements that reached the server's socket, `journal`
    (shared with an answer) what was sent when, `opened` every (shard, epoch, cursor, who is
    awaited) asked for. `pause` is awaited before and after each call. `canned` replies come before
    any that the server would give to a reserve.
    """

    def __init__(self, store: RedisQuotaStore) -> None:
        self._store = store
        self.asked: list[str] = []
        self.asks: list[ReserveAsk] = []
        self.sent: list[Settlement] = []
        self.corrections: list[Correction] = []
        self.journal: list[str] = []
        self.away = False
        self.opened: list[tuple[int, int, str, tuple[str, ...]]] = []
        self.canned: deque[ReserveReply] = deque()
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
        if isinstance(kind, StoreNotAsked):
            call.close()
            raise kind
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
        if self.canned:
            self.asked.append("reserve")
            return self.canned.popleft()
        return await self._pass("reserve", self._store.reserve(ask))

    async def reassert(self, told: OpenCall) -> ReassertReply:
        return await self._pass("reassert", self._store.reassert(told))

    async def extend(self, payer: str, rid: str, progress_tokens: int, lease_ms: int) -> bool:
        call = self._store.extend(payer, rid, progress_tokens, lease_ms)
        return await self._pass("extend", call)

    async def settle(self, settlement: Settlement) -> asyncio.Future[SettleReply]:
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

        return spawn(read(), f"settle {settlement.rid}", awaited=True)

    async def expire(self, lapsed: LapsedHold, settlement: Settlement) -> SettleReply:
        self.sent.append(settlement)
        return await self._pass("expire", self._store.expire(lapsed, settlement))

    async def correct(self, correction: Correction) -> bool:
        self.corrections.append(correction)
        return await self._pass("correct", self._store.correct(correction))

    async def entitle(self, entitlement: Entitlement, period_end_ms: int) -> EntitleReply:
        return await self._pass("entitle", self._store.entitle(entitlement, period_end_ms))

    async def hydrate_begin(
        self, payer: str, member: str | None, period_start_ms: int, period_end_ms: int
    ) -> Hydration | None:
        call = self._store.hydrate_begin(payer, member, period_start_ms, period_end_ms)
        return await self._pass("hydrate_begin", call)

    async def hydrate_finish(
        self, payer: str, member: str | None, hydration: Hydration, sums: LedgerSums
    ) -> FinishCode:
        call = self._store.hydrate_finish(payer, member, hydration, sums)
        return await self._pass("hydrate_finish", call)

    async def snapshot(self, payer: str, member: str | None = None) -> Snapshot | None:
        return await self._pass("snapshot", self._store.snapshot(payer, member))

    async def forget(self, account: str, shard: int) -> bool:
        return await self._pass("forget", self._store.forget(account, shard))

    async def epochs(self) -> dict[int, int]:
        return await self._pass("epochs", self._store.epochs())

    async def has_event(self, shard: int, stream_id: str, is_booked: bool) -> bool:
        call = self._store.has_event(shard, stream_id, is_booked)
        return await self._pass("has_event", call)

    async def known(self, calls: Sequence[tuple[str, str]]) -> Sequence[bool]:
        return await self._pass("known", self._store.known(calls))

    async def shard_state(self, shard: int) -> ShardState:
        return await self._pass("shard_state", self._store.shard_state(shard))

    async def open_shard(
        self, shard: int, epoch: int, cursor: str, quiet_ms: int, awaited: Sequence[str]
    ) -> int:
        self.opened.append((shard, epoch, cursor, tuple(awaited)))
        call = self._store.open_shard(shard, epoch, cursor, quiet_ms, awaited)
        return await self._pass("open_shard", call)

    async def caught_up(self, shard: int, epoch: int, gateway_id: str) -> None:
        call = self._store.caught_up(shard, epoch, gateway_id)
        await self._pass("caught_up", call)


def _raise(name: str, kind: Trouble | Exception) -> None:
    if isinstance(kind, Exception):
        raise kind
    if kind == "reply lost":
        raise StoreUnavailable(f"the reply to {name} was lost")
