"""The whole flow put together on fakes at its ports, with a plan that is easy to reckon with.

A token is a character, a tier has a thousand times fewer of them than in life, and the clock stands
still: so a test can say to the token what a call must cost.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from msgspec import structs

from gateway.adapters.spill import SpillFiles
from gateway.core.event import LedgerRow, ledger_row
from gateway.core.idempotency import read_key
from gateway.core.identity import key_digest, shard_of
from gateway.core.inference.judges import JUDGES
from gateway.core.inference.request import Dialect
from gateway.core.models import Model, ModelTable, Weights
from gateway.core.period import Calendar, Period
from gateway.core.plan import PackOffer, Plan, Tier
from gateway.core.pricing import Price, PriceTable, PriceVersion
from gateway.core.quota.entitle import Snapshot
from gateway.core.rid import make_rid
from gateway.core.routes import CHAT, Route
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
from gateway.flow.repeat import Repeats, RepeatTerms
from gateway.flow.settlements import Settlements
from gateway.flow.shards import Shards
from gateway.flow.terms import OutageTerms, Terms
from gateway.jobs.sweep import Sweep, SweepTerms
from tests.fakes.answer import RecordedAnswer
from tests.fakes.chat_stream import completion
from tests.fakes.clock import HandClock
from tests.fakes.kept_answers import TroubledAnswers
from tests.fakes.ledger import FakeDirectory, FakeLedger
from tests.fakes.metrics import SeenMetrics
from tests.fakes.notices import SeenNotices
from tests.fakes.store import SHARDS, FakeStores, TroubledStore, fake_stores
from tests.fakes.upstream import ScriptedAnswer, ScriptedUpstream

PEPPER = b"pepper"
GRACE_MS = 10_000
COUNTS = {"prompt_tokens": 20, "completion_tokens": 30}
MODEL = "gpt-4o-mini"
PROMPTS: dict[str, dict[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": "Hi"}]},
    "responses": {"input": "Hi"},
}
PLAN = Plan(
    tiers={
        "free": Tier("free", 1000, "lite", False, None, (MODEL,)),
        "lite": Tier("lite", 10_000, "full", False, None, ("*",)),
        "full": Tier("full", 16_020, None, False, PackOffer(320, Decimal("2.00"), 365), ("*",)),
    },
    default_tier="free",
    anchor_day=1,
    zone="UTC",
    thresholds_percent=(80, 95, 100),
)
PRICES = PriceTable(
    (
        PriceVersion(
            "2026",
            0,
            {
                "*": Price("2026", 9_000_000, 9_000_000, 9_000_000, is_default=True),
                MODEL: Price("2026", 2_000_000, 1_000_000, 4_000_000),
            },
        ),
    )
)
TERMS = Terms(
    plan=PLAN,
    models=ModelTable(
        (
            Model(MODEL, "openai", "chars", 100_000, 400, 100, 16, Weights()),
            Model("gpt-9", "other", "chars", 100_000, 400, 100, 16, Weights()),
        )
    ),
    prices=PRICES,
    dialects={"openai": Dialect(), "other": Dialect(stream_usage=False)},
    upgrade_url=None,
    topup_url=None,
    lease_ms=60_000,
    heartbeat_ms=10_000,
    stream_max_s=3600.0,
    drain_s=30.0,
    drains_max=2,
    outage=OutageTerms("closed", 0),
)
REPEAT_TERMS = RepeatTerms(
    keep_ms=86_400_000, answer_bytes_max=1000, running_ms=70_000, renew_ms=10_000
)


class CharTokenizer:
    """Fulfils ports.tokenizer.Tokenizer: one token a character. `counted` has the texts."""

    def __init__(self) -> None:
        self.counted: list[str] = []

    def load(self, encoding: str) -> None: ...

    def count(self, text: str, encoding: str) -> int:
        self.counted.append(text)
        return len(text)


class FlowRig:
    """One gateway's flow. Rids count up, so that a failing test shows which call it was."""

    def __init__(self, stores: FakeStores, terms: Terms, state_dir: Path) -> None:
        self.terms = terms
        self.redis = stores
        self.store: TroubledStore = stores.store
        self.clock, self.metrics, self.notices = HandClock(), SeenMetrics(), SeenNotices()
        self.directory = FakeDirectory()
        self.ledger = FakeLedger(self.directory)
        self.recent, self.state_dir = RecentSettlements(), state_dir
        self.spill = SpillFiles(state_dir / "spill", "rig", self.metrics)
        self.shards = Shards(self.store, self.ledger, SHARDS, self.recent)
        self.hydrator = Hydrator(self.store, self.ledger, self.shards, self.metrics)
        self.identities = Identities(self.directory, PEPPER)
        self.settlements = Settlements(
            self.store,
            self.shards,
            (self.recent, self.spill),
            terms.plan.thresholds_percent,
            self.metrics,
        )
        self.open_holds = OpenHolds(self.store, self.shards, self.settlements, terms, self.clock)
        self.accounts = Accounts(self.directory, self.store, self.hydrator, terms.plan, self.clock)
        self.upstream, self.tokenizer = ScriptedUpstream(), CharTokenizer()
        self.prompts = PromptCounter(self.tokenizer)
        self.services = RelayServices(
            settlements=self.settlements,
            estimator=Estimator(self.prompts, terms.models),
            drains=Drains(terms.drains_max),
            terms=terms,
        )
        self.first_refusals = FirstRefusals(self.notices)
        parts = Stores(
            store=self.store,
            directory=self.directory,
            shards=self.shards,
            hydrator=self.hydrator,
            identities=self.identities,
            settlements=self.settlements,
            first_refusals=self.first_refusals,
        )
        self.admission = Admission(parts, terms, self.prompts, self.clock)
        self.exchange = Exchange(
            self.admission,
            self.upstream,
            self.open_holds,
            self.services,
            (self.metrics, self.clock),
        )
        self.answers = TroubledAnswers(stores.answers)
        self.repeats = self.repeats_of(REPEAT_TERMS)
        self._rids = 0

    def repeats_of(self, terms: RepeatTerms) -> Repeats:
        """The same exchange for calls with an idempotency key, under terms of the test's own."""
        return Repeats(self.exchange, self.identities, self.answers, terms, self.metrics)

    @property
    def period(self) -> Period:
        return Calendar(PLAN.anchor_day, PLAN.zone).period_at(self.clock.now_ms())

    async def user(self, user_id: str = "ada", tier: str = "free") -> str:
        """A new user and the user's key."""
        await self.accounts.create_user(user_id, tier)
        return (await self.accounts.create_key(user_id, PEPPER)).key

    async def member(self, user_id: str, payer: str) -> str:
        """A new user who spends from another's account, and the user's key."""
        key = await self.user(user_id)
        self.directory.people[user_id] = replace(self.directory.people[user_id], payer=payer)
        return key

    def call(self, key: str, route: Route = CHAT, **body: Any) -> Call:
        """A call of eight tokens a prompt or so, changed by `body`."""
        return self.call_to(route, key, {"model": MODEL, **PROMPTS[route.name], **body})

    def call_to(self, route: Route, key: str, asked: dict[str, Any]) -> Call:
        """A call of any metered route."""
        raw = json.dumps(asked).encode()
        self._rids += 1
        return Call(
            rid=make_rid(self.clock.now_ms(), self._rids.to_bytes(10, "big")),
            route=route,
            credential=self.identities.credential(key),
            request=JUDGES[route.name](raw),
            body_bytes=len(raw),
            received_s=self.clock.monotonic_s(),
            tag="quiz",
            sdk_retry=0,
            client_id=None,
        )

    def keyed(self, key: str, idempotency_key: str = "once", **body: Any) -> Call:
        """The same with an idempotency key, for the body as it is given."""
        call, asked = self.call(key, **body), json.dumps(body).encode()
        return structs.replace(call, idempotency_key=read_key(idempotency_key, CHAT.name, asked))

    async def spend(self, key: str) -> LedgerRow:
        """One call of 50 tokens to its end; its row, which the ledger does not have yet."""
        self.will_answer(ScriptedAnswer([completion("Hi", COUNTS)]))
        await self.exchange.run(call := self.call(key), RecordedAnswer())
        payer = self.directory.people[self.directory.keys[key_digest(key, PEPPER)]].payer
        (row,) = [row for row in await self.rows(payer) if row.event_id == call.rid]
        return row

    def will_answer(self, *answers: ScriptedAnswer | Exception) -> None:
        self.upstream.answers += answers

    async def account(self, payer: str = "ada") -> Snapshot:
        """The account once every settlement is confirmed."""
        await self.settled()
        snapshot = await self.store.snapshot(payer)
        assert snapshot is not None
        return snapshot

    async def settled(self) -> None:
        async with asyncio.timeout(10):
            await self.settlements.confirmed()

    async def rows(self, payer: str = "ada") -> list[LedgerRow]:
        """What the drain would book: the payer's outbox as ledger rows."""
        await self.settled()
        shard = shard_of(payer, SHARDS)
        entries = await self.redis.streams.read({shard: "0-0"}, 1000, 1)
        return [
            ledger_row(shard, entry.stream_id, entry.event_json, entry.script_part)
            for entry in entries
        ]

    async def drain(self, payer: str = "ada", last: int | None = None) -> None:
        """The ledger books the payer's outbox, or its first `last` rows."""
        await self.ledger.book((await self.rows(payer))[:last], [], _no_doubles)

    async def lapse(self, over_ms: int) -> None:
        """Every lease in the store ended so long ago."""
        seconds, micros = await self.redis.client.time()
        ended_ms = seconds * 1000 + micros // 1000 - over_ms
        for key in await self.redis.client.keys("qg:*:l"):
            for member in await self.redis.client.zrange(key, 0, -1):
                await self.redis.client.zadd(key, {member: ended_ms})

    async def expire(self) -> None:
        """Every hold that is open lapses, and the sweeper ends it."""
        await self.lapse(GRACE_MS + 1)
        terms = SweepTerms(SHARDS, GRACE_MS, self.terms.prices, self.terms.plan.thresholds_percent)
        sweep = Sweep(self.redis.leases, self.store, terms, self.metrics, self.clock)
        await sweep.step()

    async def lose_everything(self) -> None:
        """The server comes back empty."""
        await self.redis.client.flushall()

    async def lose_account(self) -> None:
        """The accounts are gone from the store; its outbox is not."""
        for key in await self.redis.client.keys("qg:*:a:*"):
            await self.redis.client.delete(key)


async def _no_doubles(rows: Sequence[LedgerRow]) -> None:
    raise AssertionError(f"counted twice: {rows}")


@asynccontextmanager
async def flow_rig(**changes: Any) -> AsyncIterator[FlowRig]:
    """A rig with its shards open; `changes` are to its terms."""
    with TemporaryDirectory() as place:
        async with fake_stores() as stores:
            rig = FlowRig(stores, replace(TERMS, **changes), Path(place))
            await rig.shards.open_all()
            yield rig
            stores.store.away, stores.store.troubles, stores.store.pause = False, {}, None
            rig.ledger.away = False
            await rig.settled()
            rig.spill.close()


async def until(condition: Callable[[], object]) -> None:
    """Wait for what another task does; TimeoutError after ten seconds."""
    async with asyncio.timeout(10):
        while True:
            if condition():
                return
            await asyncio.sleep(0)
