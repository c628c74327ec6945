"""Both stores, opened: scripts, ports, and the flow parts that stand on them alone.

Every process and command gets its stores here, checked for being fit to keep money, and gives
them back when its block ends. Migrations are a step of their own, done once by whoever starts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from gateway.adapters.clock import SystemClock
from gateway.adapters.postgres.connection import open_pool
from gateway.adapters.postgres.corrections import PostgresCorrections
from gateway.adapters.postgres.deliveries import PostgresDeliveries
from gateway.adapters.postgres.directory import PostgresDirectory
from gateway.adapters.postgres.history import PostgresHistory
from gateway.adapters.postgres.ledger import PostgresLedger
from gateway.adapters.postgres.listings import PostgresListings
from gateway.adapters.postgres.notices import PostgresNotices
from gateway.adapters.postgres.operators import PostgresOperators
from gateway.adapters.postgres.payers import PostgresPayers
from gateway.adapters.postgres.payments import PostgresOrders
from gateway.adapters.postgres.reports import PostgresReports
from gateway.adapters.postgres.sales import PostgresSales
from gateway.adapters.postgres.tier_ledger import PostgresTierLedger
from gateway.adapters.redis_store.answers import RedisAnswers
from gateway.adapters.redis_store.calls import Calls
from gateway.adapters.redis_store.cluster_jobs import ClusterLeases, ClusterStreams
from gateway.adapters.redis_store.leases import RedisLeases
from gateway.adapters.redis_store.quota_store import RedisQuotaStore
from gateway.adapters.redis_store.scripts import Script, load_scripts, lua_folder
from gateway.adapters.redis_store.streams import RedisStreams
from gateway.adapters.redis_store.tier_shares import RedisTierShares
from gateway.app.embedded import ledger_url_of, redis_url_of
from gateway.app.redis_parts import RedisTerms, open_redis
from gateway.config import Settings
from gateway.flow.accounts import Accounts
from gateway.flow.agreement import Agreement
from gateway.flow.hydrate import Hydrator
from gateway.flow.people import People
from gateway.flow.recent import RecentSettlements
from gateway.flow.shards import Shards
from gateway.flow.topups import Shop, TopUps
from gateway.ports.metrics import Metrics

_PATIENT_S = 5.0


@dataclass(frozen=True, slots=True)
class Stores:
    """What stands on Redis and Postgres. `unguarded` is the store past the breaker: what is not
    asked for a caller must not make callers be refused."""

    store: RedisQuotaStore
    unguarded: RedisQuotaStore
    answers: RedisAnswers
    shares: RedisTierShares
    streams: RedisStreams | ClusterStreams
    leases: RedisLeases | ClusterLeases
    ledger: PostgresLedger
    tier_ledger: PostgresTierLedger
    directory: PostgresDirectory
    sales: PostgresSales
    orders: PostgresOrders
    reports: PostgresReports
    payers: PostgresPayers
    history: PostgresHistory
    listings: PostgresListings
    operators: PostgresOperators
    corrections: PostgresCorrections
    notices: PostgresNotices
    deliveries: PostgresDeliveries
    shards: Shards
    recent: RecentSettlements
    hydrator: Hydrator
    clock: SystemClock
    when_redis_back: list[Callable[[], None]]

    def acting(self, author: str) -> Stores:
        """The same, in whose changes the audit names somebody else."""
        return replace(self, directory=self.directory.by(author))

    @property
    def agreement(self) -> Agreement:
        """Whether both say the same."""
        return Agreement(self.store, self.ledger, self.shards.of, self.clock)

    def accounts(self, settings: Settings) -> Accounts:
        """What an operator does to users."""
        return Accounts(self.directory, self.store, self.hydrator, settings.plan, self.clock)

    def topups(self, settings: Settings) -> TopUps:
        """Packs and adjustments."""
        shop = Shop(settings.plan, settings.refusal.upgrade_url)
        return TopUps(self.directory, self.sales, self.store, shop, self.clock)

    def people(self, settings: Settings) -> People:
        """What an operator does to who they are."""
        return People(self.directory, self.store, settings.plan, self.clock)


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
        pool = await open_pool(ledger_url := ledger_url_of(settings))
        stack.callback(pool.terminate)
        scripts = await _brought_scripts(redis.direct)
        recent, ledger = RecentSettlements(), PostgresLedger(pool, ledger_url)
        direct = RedisQuotaStore(redis.direct, scripts, shards_count)
        store = RedisQuotaStore(redis.calls, scripts, shards_count)
        shards = Shards(direct, ledger, shards_count, recent)
        await shards.open_all()
        yield Stores(
            store=store,
            unguarded=RedisQuotaStore(redis.unguarded, scripts, shards_count),
            answers=RedisAnswers(redis.calls, scripts["keep"], shards_count),
            shares=RedisTierShares(redis.calls, scripts["share"]),
            streams=redis.streams,
            leases=redis.leases,
            ledger=ledger,
            tier_ledger=PostgresTierLedger(pool),
            directory=PostgresDirectory(pool, author),
            sales=PostgresSales(pool),
            orders=PostgresOrders(pool),
            reports=PostgresReports(pool),
            payers=PostgresPayers(pool),
            history=PostgresHistory(pool),
            listings=PostgresListings(pool),
            operators=PostgresOperators(pool),
            corrections=PostgresCorrections(pool, ledger_url),
            notices=PostgresNotices(pool),
            deliveries=PostgresDeliveries(pool, ledger_url),
            shards=shards,
            recent=recent,
            hydrator=Hydrator(store, ledger, shards, metrics),
            clock=clock,
            when_redis_back=redis.when_back,
        )


async def _brought_scripts(calls: Calls) -> Mapping[str, Script]:
    """Brought before traffic: a settlement that had to bring its script along first would not be
    with Redis yet when its answer is with the client."""
    scripts = load_scripts(lua_folder())
    for script in scripts.values():
        await calls.command("SCRIPT", "LOAD", script.source)
    return scripts
