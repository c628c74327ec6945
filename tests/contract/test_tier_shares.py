"""The cap of a whole tier over sixteen shards: never exceeded, whoever dies, sends late or loses.

Real Redis, real Postgres and the real drain. After every step all shards are looked at in one
transaction: shares together, and what is used and held together, are never more than the cap.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from msgspec import structs

from gateway.adapters.clock import SystemClock
from gateway.adapters.postgres.connection import Pool
from gateway.adapters.postgres.ledger import PostgresLedger
from gateway.adapters.postgres.tier_ledger import PostgresTierLedger
from gateway.adapters.prometheus_jobs_metrics import JobsMetrics
from gateway.adapters.redis_store.keys import tier_key
from gateway.adapters.redis_store.quota_store import RedisQuotaStore
from gateway.adapters.redis_store.tier_shares import RedisTierShares
from gateway.core.identity import shard_of
from gateway.core.period import Calendar
from gateway.core.plan import Plan, Tier
from gateway.core.quota.entitle import FinishCode
from gateway.core.quota.reserve import Limits, ReserveAsk, ReserveCode
from gateway.core.quota.shares import ShareAsk, ShareCode, ShareReply
from gateway.jobs.drain import Drain, DrainTerms
from gateway.jobs.tier_shares import ShareTerms, TierSharing
from gateway.ports.ledger import LedgerUnavailable
from gateway.ports.quota_store import StoreUnavailable
from tests.contract.quota_samples import (
    ENDS_MS,
    SCRIPTS,
    STARTS_MS,
    ask,
    ledger_sums,
    open_jobs,
    open_store,
    settlement,
)

SHARDS, CAP = 16, 60_000
TIER = Tier("free", 10**9, None, False, None, ("*",), tier_tokens=CAP)
PLAN = Plan({"free": TIER}, "free", 1, "UTC", (80, 100))
PAYERS = [
    next(f"p{n}" for n in range(9999) if shard_of(f"p{n}", SHARDS) == shard)
    for shard in range(SHARDS)
]


@dataclass
class LateShares:
    """The shares of a job whose calls may arrive once more, much later; and of which some fail."""

    shares: RedisTierShares
    chance: random.Random
    sent: list[ShareAsk] = field(default_factory=list)
    silent: set[int] = field(default_factory=set)

    async def share(self, asked: ShareAsk) -> ShareReply:
        if asked.shard in self.silent:
            raise StoreUnavailable("this shard's node is away")
        self.sent.append(asked)
        reply = await self.shares.share(asked)
        if asked.wanted_tokens is not None and self.chance.random() < 0.1:
            raise StoreUnavailable("done, and the reply was lost")
        return reply

    async def arrive_late(self) -> None:
        if self.sent:
            await self.shares.share(self.chance.choice(self.sent[-400:]))


@dataclass
class World:
    """Gateways, two processes that hand out, the drain, and a look at all shards."""

    store: RedisQuotaStore
    shares: RedisTierShares
    drain: Drain
    ledgers: tuple[PostgresLedger, PostgresTierLedger]
    client: redis.Redis
    metrics: JobsMetrics
    asked: int = 0
    epoch: int = 1
    charged: int = 0

    @property
    def period_ms(self) -> int:
        now_ms = SystemClock().now_ms()
        return Calendar(PLAN.anchor_day, PLAN.zone).period_at(now_ms).start_ms

    def job(self, shares: LateShares | RedisTierShares) -> TierSharing:
        terms = ShareTerms(PLAN, SHARDS)
        return TierSharing(shares, self.ledgers, terms, self.metrics, SystemClock())

    async def begin(self, epoch: int) -> None:
        """All shards at this epoch, and everybody's account with nothing used."""
        self.epoch = epoch
        for shard, payer in enumerate(PAYERS):
            cursor = "0-0"
            if epoch > 1:
                granted, cursor = await self.ledgers[0].raise_epoch(shard, epoch - 1)
                assert granted == epoch
            await self.store.open_shard(shard, epoch, cursor, 0, ())
            found = await self.store.hydrate_begin(payer, None, STARTS_MS, ENDS_MS)
            assert found is not None
            sums = ledger_sums()
            assert await self.store.hydrate_finish(payer, None, found, sums) is FinishCode.FINISHED

    def ask(self, payer: str, tokens: int, **changes: Any) -> ReserveAsk:
        self.asked += 1
        limits = Limits(10**9, tier_period_start_ms=self.period_ms)
        return ask(
            self.asked, payer=payer, limits=limits, prompt_tokens=tokens, output_wanted=0,
            output_least=0, **changes,
        )  # fmt: skip

    async def call(self, asked: ReserveAsk, charge: int | None) -> ReserveCode:
        """A call from its hold to its end; None: it stays open."""
        reply = await self.store.reserve(asked)
        if reply.code is ReserveCode.HELD and charge is not None:
            await self.end(asked, charge)
        return reply.code

    async def end(self, asked: ReserveAsk, charge: int) -> None:
        ending = settlement(
            rid=asked.rid, payer=asked.payer, epoch=self.epoch, charged_tokens=charge,
            limit_tokens=10**9, tier_period_start_ms=asked.limits.tier_period_start_ms,
        )  # fmt: skip
        ending = structs.replace(
            ending, event_json=ending.event_json.replace(b"-000000000001", asked.rid[-13:].encode())
        )
        reply = await (await self.store.settle(ending))
        assert reply.stream_id
        self.charged += charge

    def look(self) -> list[Mapping[bytes, bytes]]:
        """All shards at one moment; nothing may be beyond the cap."""
        pipe = self.client.pipeline(transaction=True)
        for shard in range(SHARDS):
            pipe.hgetall(tier_key("free", shard))
        found: list[Mapping[bytes, bytes]] = pipe.execute()
        there = [each for each in found if each and int(each[b"e"]) == self.epoch]
        for each in there:
            assert int(each[b"s"]) + int(each[b"h"]) <= int(each[b"c"]) or each[b"r"] == b"0"
        assert sum(int(each[b"c"]) for each in there) <= CAP
        return there

    def settled(self) -> int:
        return sum(int(each[b"s"]) for each in self.look())


@pytest.fixture
async def world(redis_url: str, pool: Pool, ledger: PostgresLedger) -> AsyncIterator[World]:
    clock, metrics = SystemClock(), JobsMetrics()
    await ledger.prepare_partitions(int(datetime.now(UTC).timestamp() * 1000))
    async with open_store(redis_url) as opened, open_jobs(redis_url, SHARDS) as jobs:
        store = RedisQuotaStore(opened.calls, SCRIPTS, SHARDS)
        drain = Drain(jobs.streams, (store, ledger), DrainTerms(SHARDS, 600, 2**28), metrics, clock)
        with redis.Redis.from_url(redis_url) as client:
            found = World(
                store, RedisTierShares(opened.calls, SCRIPTS["share"]), drain,
                (ledger, PostgresTierLedger(pool)), client, metrics,
            )  # fmt: skip
            assert await ledger.lock_shards(SHARDS)
            await found.begin(1)
            yield found


async def round_of(job: TierSharing, chance: random.Random) -> None:
    """One round, which may fail anywhere, or be killed in its midst."""
    try:
        if chance.random() < 0.3:
            async with asyncio.timeout(chance.random() * 0.02):
                await job.hand_out("free", CAP)
        else:
            await job.hand_out("free", CAP)
    except (TimeoutError, StoreUnavailable, LedgerUnavailable):
        pass


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_cap_is_kept_while_jobs_die_and_what_they_sent_comes_late(
    world: World, seed: int
) -> None:
    chance = random.Random(seed)
    late = LateShares(world.shares, chance)
    jobs = [world.job(late), world.job(late)]
    open_calls: list[ReserveAsk] = []
    codes: set[ReserveCode] = set()
    for _ in range(40):
        asks = [world.ask(chance.choice(PAYERS), chance.randint(1, 900)) for _ in range(24)]
        charges = [chance.choice([None, 0, each.prompt_tokens]) for each in asks]
        calls = [world.call(each, charge) for each, charge in zip(asks, charges, strict=True)]
        rounds = [round_of(each, chance) for each in jobs]
        late_calls = [late.arrive_late() for _ in range(8)]
        ends = [world.end(each, chance.randint(0, each.prompt_tokens)) for each in open_calls]
        told = await asyncio.gather(*calls, *rounds, *late_calls, *ends)
        open_calls = [
            each for each, charge, code in zip(asks, charges, told, strict=False)
            if charge is None and code is ReserveCode.HELD
        ]  # fmt: skip
        codes.update(code for code in told if isinstance(code, ReserveCode))
        world.look()
    await asyncio.gather(*(world.end(each, each.prompt_tokens) for each in open_calls))
    assert {ReserveCode.HELD, ReserveCode.TIER} <= codes
    assert world.settled() == world.charged <= CAP
    # Nothing is lost on the way: with the jobs well, what is left can be had, by one or the other.
    for _ in range(40 * SHARDS):
        if CAP - world.charged < 3_000:
            break
        await world.job(world.shares).hand_out("free", CAP)
        await world.call(world.ask(chance.choice(PAYERS), 100), 100)
        world.look()
    assert CAP - world.charged < 3_000
    used = world.metrics.render().decode()
    assert 'quota_gateway_tier_used_tokens{tier="free"}' in used


async def test_after_a_loss_the_cap_is_not_given_anew(world: World) -> None:
    job = world.job(world.shares)
    await job.hand_out("free", CAP)
    for payer in PAYERS:
        assert await world.call(world.ask(payer, 1_500), 1_500) is ReserveCode.HELD
    await world.drain.drain_all()
    world.client.flushall()
    await world.begin(2)
    reply = await world.store.reserve(world.ask(PAYERS[0], 1))
    assert (reply.code, reply.wait_ms) == (ReserveCode.TIER, 1_000)  # nothing yet, but soon
    await job.hand_out("free", CAP)
    assert world.settled() == world.charged == SHARDS * 1_500
    await job.hand_out("free", CAP)  # what earlier epochs settled is counted once
    assert world.settled() == world.charged
    held = [await world.call(world.ask(payer, 2_000), None) for payer in PAYERS]
    assert held.count(ReserveCode.HELD) == 1  # of 36,000 each has 1,125, and one the other half
    world.look()


async def test_nothing_is_given_before_the_ledger_has_what_earlier_epochs_settled(
    world: World,
) -> None:
    """The server has all its events, and the drain is behind: the epoch is raised all the same."""
    job = world.job(world.shares)
    await job.hand_out("free", CAP)
    for payer in PAYERS:
        await world.call(world.ask(payer, 1_000), 900)
    await world.begin(2)
    await job.hand_out("free", CAP)
    assert {await world.call(world.ask(payer, 1), 1) for payer in PAYERS} == {ReserveCode.TIER}
    await world.drain.drain_all()
    await job.hand_out("free", CAP)
    assert world.settled() == SHARDS * 900
    assert {await world.call(world.ask(payer, 1), 1) for payer in PAYERS} == {ReserveCode.HELD}


async def test_while_a_shard_does_not_answer_the_others_keep_what_they_have(world: World) -> None:
    await world.job(world.shares).hand_out("free", CAP)
    before = [each[b"c"] for each in world.look()]
    silent = LateShares(world.shares, random.Random(0), silent={7})
    with pytest.raises(StoreUnavailable):
        await world.job(silent).hand_out("free", CAP)
    assert [each[b"c"] for each in world.look()] == before
    assert await world.call(world.ask(PAYERS[3], 1_000), 1_000) is ReserveCode.HELD


async def test_a_round_that_was_overtaken_raises_nothing(world: World) -> None:
    _, tier_ledger = world.ledgers
    older, newer = await tier_ledger.next_round(), await tier_ledger.next_round()
    assert older < newer
    await world.job(world.shares).hand_out("free", CAP)
    asked = ShareAsk("free", 2, older, world.period_ms, epoch=1, wanted_tokens=CAP)
    assert (await world.shares.share(asked)).code is ShareCode.OVERTAKEN
    world.look()


async def test_only_the_process_that_drains_hands_out(world: World) -> None:
    job = world.job(world.shares)
    world.ledgers[0].unlock_shards()
    assert await job.step() == 2.0
    assert world.look() == []
    assert await world.ledgers[0].lock_shards(SHARDS)
    assert await job.step() == 1.0
    assert sum(int(each[b"c"]) for each in world.look()) == CAP
