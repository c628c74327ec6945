"""The processes of the world: proxy workers and the jobs, put together of the product's own parts.

They are composed as `app.proxy_process` and `app.jobs_process` do it, without what needs sockets:
the web and the adapters. A process is killed by marking it dead and forgotten; its next life is a
new one that knows nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextvars import copy_context
from dataclasses import dataclass, replace

from gateway.adapters.redis_store.server_watch import ServerWatch, id_of
from gateway.core.quota.settle import Settlement
from gateway.core.rid import Rids
from gateway.core.routes import CHAT
from gateway.flow.accounts import Accounts
from gateway.flow.admit import Admission, Call, Stores
from gateway.flow.estimate import Estimator
from gateway.flow.exchange import Exchange
from gateway.flow.first_refusals import FirstRefusals
from gateway.flow.hydrate import Hydrator
from gateway.flow.identify import Identities
from gateway.flow.open_holds import OpenHolds
from gateway.flow.prompt_count import PromptCounter
from gateway.flow.recent import RecentSettlements
from gateway.flow.relay import Drains, RelayServices
from gateway.flow.settlements import Settlements
from gateway.flow.shards import Shards
from gateway.jobs.drain import Drain, DrainTerms
from gateway.jobs.project import Projection
from gateway.jobs.service import run_forever
from gateway.jobs.sweep import Sweep, SweepTerms
from gateway.ports.ledger import LedgerUnavailable
from gateway.ports.metrics import Metrics
from gateway.ports.quota_store import StoreUnavailable
from gateway.ports.tasks import spawn
from tests.fakes.flow_rig import PLAN, PRICES, TERMS, CharTokenizer
from tests.fakes.metrics import SeenMetrics
from tests.fakes.notices import SeenNotices
from tests.simulation.auditor import Auditor
from tests.simulation.calls import CallRecord, SimUpstream, request_of
from tests.simulation.loop import PROCESS, Process
from tests.simulation.network import Air, Link
from tests.simulation.record import Record, SimDirectory, SimLedger
from tests.simulation.server import SHARDS, SimServer
from tests.simulation.stores import SimLeases, SimOutbox, SimStore

GRACE_MS = 1000
# Short, so that leases run out within a run.
SHORT = replace(
    TERMS, lease_ms=3000, heartbeat_ms=1000, stream_max_s=8.0, drain_s=2.0, drains_max=2
)
_DEADLINE_S, _PATIENT_S, _POSTGRES_S = 0.15, 5.0, 2.0
_PAUSE_S = 0.5


@dataclass(frozen=True)
class Parts:
    """The product's classes of which a world is made; a test puts a faulty one in a place."""

    settlements: type[Settlements] = Settlements
    store: type[SimStore] = SimStore
    ledger: type[SimLedger] = SimLedger


@dataclass(frozen=True)
class Ground:
    """What all processes of one world stand on."""

    air: Air
    server: SimServer
    record: Record
    auditor: Auditor
    parts: Parts
    records: dict[str, CallRecord]
    begin_ms: int


class SimClock:
    """Fulfils ports.clock.Clock."""

    def __init__(self, ground: Ground, skew_ms: int) -> None:
        self._loop = ground.air.loop
        self._begin_ms = ground.begin_ms + skew_ms

    def now_ms(self) -> int:
        return self._begin_ms + int(self._loop.time() * 1000)

    def monotonic_s(self) -> float:
        return self._loop.time()


class OpenStores:
    """What `app.stores.open_stores` opens, for one process."""

    def __init__(self, ground: Ground, deadline_s: float, metrics: Metrics) -> None:
        air, server, parts = ground.air, ground.server, ground.parts
        direct = parts.store(Link(air, server, _PATIENT_S), server, ground.auditor)
        self.ledger = parts.ledger(Link(air, ground.record, _POSTGRES_S), ground.record)
        self.directory = SimDirectory(Link(air, ground.record, _POSTGRES_S), ground.record)
        self.recent = RecentSettlements()
        self.shards = Shards(direct, self.ledger, SHARDS, self.recent)
        self.watch = watch = ServerWatch(lambda new: _examine(self.shards, watch, new))
        self.store = parts.store(Link(air, server, deadline_s, watch), server, ground.auditor)
        self.hydrator = Hydrator(self.store, self.ledger, self.shards, metrics)


def _examine(shards: Shards, watch: ServerWatch, server_id: str) -> None:
    """As app.redis_parts does it."""

    async def compare() -> None:
        while watch.is_examined(server_id):
            try:
                await shards.open_all()
            except (StoreUnavailable, LedgerUnavailable):
                await asyncio.sleep(_PAUSE_S)
            else:
                watch.accept(server_id)

    spawn(compare(), f"examine {server_id}")


class NoDisk:
    """Fulfils ports.spill.Spill: what a gateway writes down is lost with it."""

    def keep(self, settlement: Settlement) -> None: ...

    def done(self, rid: str) -> None: ...

    def left(self) -> Iterator[Settlement]:
        return iter(())


class SimGateway:
    """One life of a proxy worker. Made within its process."""

    def __init__(self, ground: Ground, process: Process, skew_ms: int) -> None:
        self.process = process
        self._ground = ground
        self.clock = SimClock(ground, skew_ms)
        self._metrics = SeenMetrics()
        self._rids = Rids(process.name.encode().ljust(8, b"."))
        self._exchange: Exchange | None = None
        self._watch: ServerWatch | None = None
        self.settlements: Settlements | None = None

    async def live(self) -> None:
        """Open the stores, however long that takes, then serve until killed."""
        metrics, clock = self._metrics, self.clock
        stores = OpenStores(self._ground, _DEADLINE_S, metrics)
        self._watch = stores.watch
        await _until_it_works(stores.shards.open_all)
        await _until_it_works(lambda: stores.shards.join(self.process.name))
        identities = Identities(stores.directory, b"")
        self.settlements = settlements = self._ground.parts.settlements(
            stores.store, stores.shards, (stores.recent, NoDisk()), PLAN.thresholds_percent, metrics
        )
        open_holds = OpenHolds(stores.store, stores.shards, settlements, SHORT, clock)
        prompts = PromptCounter(CharTokenizer())
        admission = Admission(
            Stores(
                stores.store, stores.directory, stores.shards, stores.hydrator, identities,
                settlements, FirstRefusals(SeenNotices()),
            ),
            SHORT, prompts, clock,
        )  # fmt: skip
        services = RelayServices(
            settlements, Estimator(prompts, SHORT.models), Drains(SHORT.drains_max), SHORT
        )
        upstream = SimUpstream(self._ground.records)
        self._exchange = Exchange(admission, upstream, open_holds, services, (metrics, clock))
        spawn(open_holds.beat_forever(), "heartbeat")
        spawn(stores.shards.watch_forever(stores.store), "watch shards")

    @property
    def is_ready(self) -> bool:
        return self._exchange is not None

    @property
    def is_comparing(self) -> bool:
        """Calls wait until the server is found in order."""
        server_id = id_of({"run_id": self._ground.server.server_id})
        return self._watch is not None and self._watch.is_examined(server_id)

    @property
    def unconfirmed(self) -> int:
        return self.settlements.unconfirmed if self.settlements else 0

    def call_for(self, record: CallRecord) -> tuple[Exchange, Call]:
        """The exchange and the call of this record."""
        if self._exchange is None:
            raise AssertionError("not ready")
        request, body_bytes = request_of(record.plan)
        call = Call(
            rid=record.rid,
            route=CHAT,
            credential=record.plan.user.encode(),
            request=request,
            body_bytes=body_bytes,
            received_s=self.clock.monotonic_s(),
            tag=None,
            sdk_retry=0,
            client_id=None,
        )
        return self._exchange, call

    def next_rid(self) -> str:
        return self._rids.next(self.clock.now_ms())


async def live_jobs(ground: Ground) -> None:
    """One life of the jobs process."""
    metrics = SeenMetrics()
    clock = SimClock(ground, 0)
    stores = OpenStores(ground, _PATIENT_S, metrics)
    await _until_it_works(stores.shards.open_all)
    link = Link(ground.air, ground.server, _PATIENT_S)
    terms = DrainTerms(SHARDS, retain_s=600, retain_bytes=2**30)
    both = (stores.store, stores.ledger)
    sweep = SweepTerms(SHARDS, GRACE_MS, PRICES, PLAN.thresholds_percent)
    outbox = SimOutbox(link, ground.server)
    steps = (
        Drain(outbox, both, terms, metrics, clock),
        Sweep(SimLeases(link, ground.server), stores.store, sweep, metrics, clock),
        Projection(stores.directory, stores.store, outbox, clock),
    )
    for step in steps:
        spawn(run_forever(step, asyncio.Lock()), step.name)


def accounts_of(ground: Ground) -> tuple[Accounts, OpenStores]:
    """What an operator works with."""
    stores = OpenStores(ground, _PATIENT_S, SeenMetrics())
    clock = SimClock(ground, 0)
    return Accounts(stores.directory, stores.store, stores.hydrator, PLAN, clock), stores


def begin(process: Process, work: Callable[[], object]) -> None:
    """Run `work`, and all that it starts, as part of the process."""
    context = copy_context()
    context.run(PROCESS.set, process)
    context.run(work)


async def _until_it_works(attempt: Callable[[], Awaitable[None]]) -> None:
    """A process that cannot open its stores ends, and its supervisor starts it anew."""
    while True:
        try:
            await attempt()
        except (StoreUnavailable, LedgerUnavailable):
            await asyncio.sleep(_PAUSE_S)
        else:
            return
