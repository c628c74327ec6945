"""Redis loses what it had confirmed: it is emptied, or it comes back as it was a while ago.

Three gateways' own parts on real stores, in one process, so that a test can hold the drain still:
what is lost here was in no other place than the gateways' memory.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest
import redis.asyncio

from gateway.adapters.embedded import EmbeddedError, RunningServer, start_redis
from gateway.adapters.postgres.ledger import PostgresLedger
from gateway.adapters.prometheus_jobs_metrics import JobsMetrics
from gateway.adapters.prometheus_metrics import ProxyMetrics
from gateway.adapters.spill import SpillFiles
from gateway.adapters.tokenizer.bpe import BpeTokenizer
from gateway.adapters.upstream.direct import DirectUpstream
from gateway.app.jobs_process import drain_of
from gateway.app.ledger_schema import prepare_ledger
from gateway.app.proxy_process import Worker, loaded_tokenizer
from gateway.app.secrets_of_state import pepper_of
from gateway.app.stores import Stores, open_stores
from gateway.app.verify import verify
from gateway.config import Settings
from gateway.core.hold import Ending
from gateway.core.inference.chat import judge_chat
from gateway.core.quota.entitle import LedgerSums
from gateway.core.refusal import Case, Refused
from gateway.core.rid import make_rid
from gateway.core.routes import CHAT
from gateway.core.usage import Usage
from gateway.flow import shards
from gateway.flow.admit import Admitted, Call
from gateway.jobs.service import run_forever, stop_between_steps
from gateway.ports.tasks import spawn
from tests.contract.redis_link import is_cut, open_link, passes
from tests.gateway.running_gateway import MODEL, MakeGateway

USERS, CALLS = 50, 200  # 10,000 events
CHARGE = 100
ALLOWANCE = 100_000
ASKS_MAX = 12  # each waits five seconds for the drain
BODY = b'{"model": "%s", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 90}'


@dataclass
class Gateway:
    """One gateway's parts, and calls through them."""

    stores: Stores
    worker: Worker
    rids: int = 0

    async def admit(self, key: str, body: bytes = BODY % MODEL.encode()) -> Admitted:
        self.rids += 1
        seed = id(self).to_bytes(8, "big")[-5:] + self.rids.to_bytes(5, "big")
        return await self.worker.admission.admit(
            Call(
                rid=make_rid(self.stores.clock.now_ms(), seed),
                route=CHAT,
                credential=self.worker.identities.credential(key),
                request=judge_chat(body),
                body_bytes=len(body),
                received_s=0.0,
                tag=None,
                sdk_retry=0,
                client_id=None,
            )
        )

    async def settle(self, admitted: Admitted) -> None:
        usage = Usage(prompt_tokens=10, cached_tokens=0, output_tokens=90, reasoning_tokens=0)
        ending = Ending(usage=usage, quality="measured", outcome="done", status=200)
        await self.worker.settlements.settle(admitted.hold, ending)

    async def outcome(self, key: str) -> str:
        """'admitted', or the code of the refusal, as soon as one can be told: a client that is
        answered 503 asks again, but not for ever. What is admitted is released."""
        for _ in range(ASKS_MAX):
            try:
                admitted = await self.admit(key)
            except Refused as refused:
                if refused.case is not Case.QUOTA_BACKEND_UNAVAILABLE:
                    return str(refused.case.value.code)
                said = str(refused.message)
            else:
                await self.worker.settlements.release(admitted.hold)
                return "admitted"
        return said


def settings_on(
    make_gateway: MakeGateway, redis_url: str, postgres_url: str, client: str = "fast"
) -> Settings:
    return make_gateway(
        # To the token: nobody goes on without Redis.
        redis={"url": redis_url, "client": client, "mode": "closed"},
        ledger={"url": postgres_url},
        identity={"keys": {"pepper": "a-pepper-of-this-test"}},
    ).settings


@asynccontextmanager
async def gateways(settings: Settings, count: int = 3) -> AsyncIterator[list[Gateway]]:
    tokenizer: BpeTokenizer = loaded_tokenizer(settings)
    await prepare_ledger(settings)
    async with AsyncExitStack() as stack:
        made: list[Gateway] = []
        for _ in range(count):
            metrics = ProxyMetrics(settings.models)
            stores = await stack.enter_async_context(open_stores(settings, metrics, "tests", 5.0))
            upstream = DirectUpstream({})
            stack.push_async_callback(upstream.close)
            name = f"gateway-{len(made) + 1}"
            spill = SpillFiles(settings.state_dir / "spill", name, metrics)
            stack.callback(spill.close)
            worker = Worker(settings, (stores, spill), metrics, tokenizer, (upstream, None))
            made.append(Gateway(stores, worker))
            await stores.shards.join(name)
            looking = spawn(stores.shards.watch_forever(stores.unguarded), "watch shards")
            stack.callback(looking.cancel)
        yield made


@pytest.fixture(autouse=True)
def _everybody_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The quiet time ends when all have sent again, and not by the clock: all of them live in this
    process, on a machine that may be busy."""
    monkeypatch.setattr(shards, "QUIET_MS", 600_000)


@asynccontextmanager
async def draining(settings: Settings, stores: Stores) -> AsyncIterator[None]:
    turn = asyncio.Lock()
    task = spawn(run_forever(drain_of(settings, stores, JobsMetrics()), turn), "drain")
    try:
        yield
    finally:
        await stop_between_steps(task, turn, wait_s=10.0)
        stores.ledger.unlock_shards()


async def each(
    work: Callable[[Gateway, int], Awaitable[object]], made: Sequence[Gateway], calls: int
) -> None:
    """`calls` in all, of each user as many, spread over the gateways, 60 at a time."""
    turns = asyncio.Semaphore(60)

    async def one(place: int) -> None:
        async with turns:
            await work(made[place % len(made)], place % USERS)

    await asyncio.gather(*(one(place) for place in range(calls)))


async def spend(made: Sequence[Gateway], keys: Sequence[str], calls: int) -> None:
    """`calls` for each user, spread over the gateways, settled and confirmed."""

    async def call(gateway: Gateway, user: int) -> None:
        await gateway.settle(await gateway.admit(keys[user]))

    await each(call, made, calls * USERS)
    for gateway in made:
        await gateway.worker.settlements.confirmed()


async def outcomes_of(made: Sequence[Gateway], keys: Sequence[str]) -> Counter[str]:
    """What three calls of each user get."""
    outcomes: Counter[str] = Counter()

    async def ask(gateway: Gateway, user: int) -> None:
        outcomes[await gateway.outcome(keys[user])] += 1

    await each(ask, made, 3 * USERS)
    return outcomes


async def people(settings: Settings, stores: Stores, used: int) -> list[str]:
    """The keys of 50 users who have used so much."""
    accounts, keys = stores.accounts(settings), []
    for place in range(USERS):
        await accounts.create_user(f"u{place}", "free")
        await accounts.set_used(f"u{place}", used, "set up", "tests")
        keys.append((await accounts.create_key(f"u{place}", pepper_of(settings))).key)
    return keys


async def test_an_emptied_redis_with_10_000_undrained_events_comes_back_to_the_token(
    make_gateway: MakeGateway,
    redis_url: str,
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = settings_on(make_gateway, redis_url, postgres_url)
    async with gateways(settings) as made:
        first = made[0]
        keys = await people(settings, first.stores, ALLOWANCE - CALLS * CHARGE)
        await spend(made, keys, CALLS)
        assert await first.stores.reports.charges(None, 9) == []  # nothing is in the ledger yet

        reads: Counter[str] = Counter()
        sums = PostgresLedger.sums

        async def counted(self: PostgresLedger, payer: str, *rest: Any) -> LedgerSums | None:
            reads[payer] += 1
            return await sums(self, payer, *rest)

        monkeypatch.setattr(PostgresLedger, "sums", counted)
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            await client.flushall()
        async with draining(settings, first.stores):
            outcomes = await outcomes_of(made, keys)
            monkeypatch.undo()
            assert outcomes == {Case.MONTH_USED_UP.value.code: 3 * USERS}
            assert max(reads.values()) <= 3
            verdict = await verify(first.stores, None, 30)
        assert verdict.agrees
        assert verdict.open_holds == 0
        assert [line.ledger_tokens for line in verdict.lines] == [CALLS * CHARGE] * USERS
        for user in range(USERS):
            snapshot = await first.stores.store.snapshot(f"u{user}")
            assert snapshot is not None
            assert snapshot.settled_tokens + snapshot.adjusted_tokens == ALLOWANCE


@pytest.fixture
async def own_redis(missing: Callable[[str], NoReturn]) -> AsyncIterator[OwnRedis]:
    with tempfile.TemporaryDirectory(prefix="qg-redis-") as place:
        own = OwnRedis(Path(place))
        try:
            await own.start()
        except EmbeddedError as error:
            missing(str(error))
        yield own
        await own.server.stop()


class OwnRedis:
    """A Redis of the test's own, which can be taken back to an earlier moment."""

    server: RunningServer

    def __init__(self, place: Path) -> None:
        self._place, self._kept = place / "state", place / "kept"

    async def start(self) -> None:
        self.server = await start_redis(self._place)

    async def remember(self) -> None:
        """What is on disk now is what it will go back to."""
        await self.server.stop()
        shutil.copytree(self._place / "redis", self._kept)
        await self.start()

    async def go_back(self) -> None:
        """A start with the older data."""
        await self.server.stop()
        shutil.rmtree(self._place / "redis")
        shutil.copytree(self._kept, self._place / "redis")
        await self.start()


async def test_a_redis_that_went_back_in_time_is_noticed_and_brought_forward_again(
    make_gateway: MakeGateway, own_redis: OwnRedis, postgres_url: str
) -> None:
    settings = settings_on(make_gateway, own_redis.server.url, postgres_url)
    async with gateways(settings) as made:
        first = made[0]
        keys = await people(settings, first.stores, ALLOWANCE - 60 * CHARGE)
        drain = drain_of(settings, first.stores, JobsMetrics())
        await spend(made, keys, 20)
        await drain.drain_all()
        await own_redis.remember()  # a restart alone loses nothing, and must raise nothing
        assert set((await first.stores.store.epochs()).values()) == {1}
        await spend(made, keys, 20)  # these are lost by Redis, not by the ledger
        await drain.drain_all()
        await spend(made, keys, 20)  # these by both

        await own_redis.go_back()
        async with draining(settings, first.stores):
            outcomes = await outcomes_of(made, keys)
            verdict = await verify(first.stores, None, 30)
        assert outcomes == {Case.MONTH_USED_UP.value.code: 3 * USERS}
        assert verdict.agrees
        assert [line.ledger_tokens for line in verdict.lines] == [60 * CHARGE] * USERS
        epochs = set((await first.stores.store.epochs()).values())
        assert epochs <= {1, 2}  # raised once where something was lost
        assert 2 in epochs


async def test_nobody_is_admitted_into_the_room_of_calls_under_way_when_redis_is_emptied(
    make_gateway: MakeGateway, redis_url: str, postgres_url: str
) -> None:
    """Three calls of each user fill what is left, one on each gateway; they end after the loss."""
    settings = settings_on(make_gateway, redis_url, postgres_url)
    async with gateways(settings) as made:
        first = made[0]
        keys, held = await people(settings, first.stores, 0), Counter[int]()
        under_way: list[tuple[Gateway, Admitted]] = []
        accounts = first.stores.accounts(settings)
        async with draining(settings, first.stores):
            for user, key in enumerate(keys):
                for gateway in made:
                    admitted = await gateway.admit(key)
                    gateway.worker.open_holds.add(admitted.hold)
                    under_way.append((gateway, admitted))
                    held[user] += admitted.hold.hold_tokens
                # Too little is left for another call, until these have ended.
                await accounts.set_used(f"u{user}", ALLOWANCE - held[user] - 5, "set up", "tests")
            async with redis.asyncio.Redis.from_url(redis_url) as client:
                await client.flushall()
            outcomes: Counter[str] = Counter()

            async def ask(gateway: Gateway, user: int) -> None:
                outcomes[await gateway.outcome(keys[user])] += 1
                seen = await gateway.stores.store.snapshot(f"u{user}")
                assert seen is not None
                assert (seen.held_tokens, seen.open_holds) == (held[user], 3)
                assert seen.used_tokens + seen.held_tokens == ALLOWANCE - 5

            await each(ask, made, 3 * USERS)
            assert outcomes == {Case.QUOTA_IN_FLIGHT.value.code: 3 * USERS}
            await asyncio.gather(*(gateway.settle(admitted) for gateway, admitted in under_way))
            for gateway in made:
                await gateway.worker.settlements.confirmed()
            verdict = await verify(first.stores, None, 30)
        assert verdict.agrees
        assert verdict.open_holds == 0
        assert [line.ledger_tokens for line in verdict.lines] == [3 * CHARGE] * USERS
        assert len(await first.stores.reports.charges(None, 1000)) == 3 * USERS


async def test_what_was_settled_by_a_call_whose_reply_was_lost_is_remembered_too(
    make_gateway: MakeGateway, redis_url: str, postgres_url: str, tmp_path: Path
) -> None:
    async with open_link(redis_url, tmp_path) as link:
        settings = settings_on(make_gateway, link.url, postgres_url)
        async with gateways(settings, count=1) as (only,):
            (key, *_) = await people(settings, only.stores, 0)
            admitted = await only.admit(key)
            lost = asyncio.Event()

            async def is_lost(reply: bytes, to: asyncio.StreamWriter) -> None:
                link.on_reply = passes
                await is_cut(reply, to)
                lost.set()

            link.on_reply = is_lost
            await only.settle(admitted)
            await lost.wait()
            await only.worker.settlements.confirmed()  # told that there is nothing to end any more
            async with redis.asyncio.Redis.from_url(redis_url) as client:
                await client.flushall()
            async with draining(settings, only.stores):
                assert await only.outcome(key) == "admitted"
                verdict = await verify(only.stores, None, 30)
            assert verdict.agrees
            assert sum(line.ledger_tokens for line in verdict.lines) == CHARGE
