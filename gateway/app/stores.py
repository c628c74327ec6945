"""Both stores, opened: scripts, ports, and the flow parts that stand on them alone.

Every process and command gets its stores here, checked for being fit to keep money, and gives
them back when its block ends. Migrations are a step of their own, done once by whoever starts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from gateway.adapters.clock import SystemClock
from gateway.adapters.postgres.connection import open_pool
from gateway.adapters.postgres.directory import PostgresDirectory
from gateway.adapters.postgres.ledger import PostgresLedger
from gateway.adapters.postgres.reports import PostgresReports
from gateway.adapters.redis_store.answers import RedisAnswers
from gateway.adapters.redis_store.cluster_jobs import ClusterLeases, ClusterStreams
from gateway.adapters.redis_store.leases import RedisLeases
from gateway.adapters.redis_store.quota_store import RedisQuotaStore
from gateway.adapters.redis_store.scripts import load_scripts, lua_folder
from gateway.adapters.redis_store.streams import RedisStreams
from gateway.app.embedded import ledger_url_of, redis_url_of
from gateway.app.redis_parts import RedisTerms, open_redis
from gateway.config import Settings
from gateway.flow.accounts import Accounts
from gateway.flow.hydrate import Hydrator
from gateway.flow.recent import RecentSettlements
from gateway.flow.shards import Shards
from gateway.ports.metrics import Metrics

_PATIENT_S = 5.0


@dataclass(frozen=True, slots=True)
class Stores:
    """What stands on Redis and Postgres."""

    store: RedisQuotaStore
    answers: RedisAnswers
    streams: RedisStreams | ClusterStreams
    leases: RedisLeases | ClusterLeases
    ledger: PostgresLedger
    directory: PostgresDirectory
    reports: PostgresReports
    shards: Shards
    recent: RecentSettlements
    hydrator: Hydrator
    clock: SystemClock
    when_redis_back: list[Callable[[], None]]

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
    clock, shards_count = SystemClock(), settings.redis.shards
    async with AsyncExitStack() as stack:

        async def compare(of_server: Sequence[int]) -> None:
            await shards.compare(of_server)

        terms = RedisTerms(redis_url_of(settings), settings.redis.client, shards_count, deadline_s)
        redis = await stack.enter_async_context(open_redis(terms, metrics, clock, compare))
        pool = await open_pool(ledger_url_of(settings))
        stack.callback(pool.terminate)
        scripts = load_scripts(lua_folder())
        recent, ledger = RecentSettlements(), PostgresLedger(pool, ledger_url_of(settings))
        shards = Shards(
            RedisQuotaStore(redis.direct, scripts, shards_count), ledger, shards_count, recent
        )
        # Before traffic: a settlement that had to bring its script along first would not be
        # with Redis yet when its answer is with the client.
        for script in scripts.values():
            await redis.direct.command("SCRIPT", "LOAD", script.source)
        await shards.open_all()
        store = RedisQuotaStore(redis.calls, scripts, shards_count)
        yield Stores(
            store=store,
            answers=RedisAnswers(redis.calls, scripts["keep"], shards_count),
            streams=redis.streams,
            leases=redis.leases,
            ledger=ledger,
            directory=PostgresDirectory(pool, author),
            reports=PostgresReports(pool),
            shards=shards,
            recent=recent,
            hydrator=Hydrator(store, ledger, shards, metrics),
            clock=clock,
            when_redis_back=redis.when_back,
        )
