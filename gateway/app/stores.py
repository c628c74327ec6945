"""Both stores, opened: connections, scripts, ports, and the flow parts that stand on them alone.

Every process and command gets its stores here, checked for being fit to keep money, and gives
them back when its block ends. Migrations are a step of their own, done once by whoever starts.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from gateway.adapters.clock import SystemClock
from gateway.adapters.postgres.connection import open_pool
from gateway.adapters.postgres.directory import PostgresDirectory
from gateway.adapters.postgres.ledger import PostgresLedger
from gateway.adapters.postgres.reports import PostgresReports
from gateway.adapters.redis_store.answers import RedisAnswers
from gateway.adapters.redis_store.breaker import Breaker, Chances
from gateway.adapters.redis_store.calls import open_connections
from gateway.adapters.redis_store.checks import check_server
from gateway.adapters.redis_store.fast_calls import FastCalls
from gateway.adapters.redis_store.leases import RedisLeases
from gateway.adapters.redis_store.plain_calls import PlainCalls
from gateway.adapters.redis_store.quota_store import RedisQuotaStore
from gateway.adapters.redis_store.scripts import load_scripts, lua_folder
from gateway.adapters.redis_store.server_watch import ServerWatch
from gateway.adapters.redis_store.streams import RedisStreams, open_client
from gateway.app.embedded import ledger_url_of, redis_url_of
from gateway.config import Settings
from gateway.flow.accounts import Accounts
from gateway.flow.hydrate import Hydrator
from gateway.flow.recent import RecentSettlements
from gateway.flow.shards import Shards
from gateway.ports.ledger import LedgerUnavailable
from gateway.ports.metrics import Metrics
from gateway.ports.quota_store import StoreUnavailable
from gateway.ports.tasks import spawn

_PATIENT_S = 5.0
_EXAMINE_PAUSE_S = 0.5
_log = logging.getLogger("gateway.stores")


@dataclass(frozen=True, slots=True)
class Stores:
    """What stands on Redis and Postgres."""

    store: RedisQuotaStore
    answers: RedisAnswers
    streams: RedisStreams
    leases: RedisLeases
    ledger: PostgresLedger
    directory: PostgresDirectory
    reports: PostgresReports
    shards: Shards
    recent: RecentSettlements
    hydrator: Hydrator
    clock: SystemClock
    breaker: Breaker

    def accounts(self, settings: Settings) -> Accounts:
        """What an operator does to users."""
        return Accounts(self.directory, self.store, self.hydrator, settings.plan, self.clock)


@asynccontextmanager
async def open_stores(
    settings: Settings, metrics: Metrics, author: str, deadline_s: float = _PATIENT_S
) -> AsyncIterator[Stores]:
    """Connect to both. `author` is who the audit names for changes made through this.

    `deadline_s` bounds each script call: short where a user waits, patient elsewhere.
    StoreUnavailable, LedgerUnavailable or UnfitStore when one of them cannot be used.
    """
    url, clock, shards_count = redis_url_of(settings), SystemClock(), settings.redis.shards
    async with AsyncExitStack() as stack:
        client = open_client(url)
        stack.push_async_callback(client.aclose)
        for warning in await check_server(client, clock.now_ms()):
            _log.warning("%s", warning)
        pool = await open_pool(ledger_url_of(settings))
        stack.callback(pool.terminate)
        scripts = load_scripts(lua_folder())
        # Shards are compared over connections of their own, which need nobody's acceptance.
        direct = PlainCalls(open_connections(url, _PATIENT_S), _PATIENT_S, metrics.store_call)
        stack.push_async_callback(direct.aclose)
        recent, ledger = RecentSettlements(), PostgresLedger(pool, ledger_url_of(settings))
        shards = Shards(
            RedisQuotaStore(direct, scripts, shards_count), ledger, shards_count, recent
        )
        watch = ServerWatch(lambda server_id: _examine(shards, watch, server_id))
        kind = FastCalls if settings.redis.client == "fast" else PlainCalls
        sent = kind(open_connections(url, deadline_s, watch), deadline_s, metrics.store_call)
        calls = Breaker(sent, metrics.breaker_open, Chances(time.monotonic, random.random))
        stack.push_async_callback(calls.aclose)
        # Before traffic: a settlement that had to bring its script along first would not be
        # with Redis yet when its answer is with the client.
        for script in scripts.values():
            await direct.command("SCRIPT", "LOAD", script.source)
        await shards.open_all()
        store = RedisQuotaStore(calls, scripts, shards_count)
        yield Stores(
            store=store,
            answers=RedisAnswers(calls, scripts["keep"], shards_count),
            streams=RedisStreams(client, shards_count),
            leases=RedisLeases(client, shards_count),
            ledger=ledger,
            directory=PostgresDirectory(pool, author),
            reports=PostgresReports(pool),
            shards=shards,
            recent=recent,
            hydrator=Hydrator(store, ledger, shards, metrics),
            clock=clock,
            breaker=calls,
        )


def _examine(shards: Shards, watch: ServerWatch, server_id: str) -> None:
    """Another server answers: compare what it knows, however long that takes, then accept it."""

    async def compare() -> None:
        while True:
            try:
                await shards.open_all()
            except (StoreUnavailable, LedgerUnavailable) as error:
                _log.warning("Redis %s is not compared yet: %s", server_id, error)
                await asyncio.sleep(_EXAMINE_PAUSE_S)
            else:
                return watch.accept(server_id)

    spawn(compare(), f"examine {server_id}")
