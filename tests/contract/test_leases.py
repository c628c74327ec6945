"""What the sweeper finds: holds that nobody ended, and endings whose time is over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.adapters.redis_store.keys import account_keys
from gateway.adapters.redis_store.quota_store import RedisQuotaStore
from gateway.adapters.redis_store.streams import RedisStreams, open_client
from gateway.core.identity import account_digest, shard_of
from gateway.ports.quota_store import LapsedHold, ReserveCode, SettleCode, StoreUnavailable
from tests.contract.quota_samples import (
    PAYER,
    SHARD,
    SHARDS,
    STARTS_MS,
    ask,
    bring,
    open_store,
    rid_of,
    settlement,
)

KEYS = account_keys(PAYER, SHARDS)
DAY_MS = 86_400_000


@dataclass(frozen=True)
class Stand:
    """A store with one account, and the sweeper's view of it."""

    store: RedisQuotaStore
    leases: RedisStreams
    client: Any

    async def rids(self, grace_ms: int = 0, rows_max: int = 100) -> list[str]:
        return [hold.rid for hold in await self.leases.lapsed(SHARD, grace_ms, rows_max)]

    async def kept(self) -> list[bytes]:
        return sorted(await self.client.hkeys(KEYS.holds))

    async def pass_over(self, number: int) -> None:
        """Let the time of a kept ending be over."""
        await self.client.zadd(KEYS.of_shard.endings, {KEYS.member(rid_of(number)): 1})


@pytest.fixture
async def stand(redis_url: str) -> AsyncIterator[Stand]:
    async with open_store(redis_url) as opened:
        await bring(opened.store)
        client = open_client(redis_url)
        yield Stand(opened.store, RedisStreams(client, SHARDS), client)
        await client.aclose()


async def test_a_lapsed_hold_tells_all_that_its_row_needs(stand: Stand) -> None:
    tail = b'{"payer":"somebody","tag":"with  spaces \\u0000"}' + b"\n\xff"
    await stand.store.reserve(ask(tail=tail, lease_ms=0))
    await stand.store.extend(PAYER, rid_of(1), 33, 0)
    assert await stand.leases.lapsed(SHARD, 0, 10) == [
        LapsedHold(
            rid=rid_of(1),
            account=account_digest(PAYER),
            shard=SHARD,
            epoch=1,
            hold_tokens=150,
            progress_tokens=33,
            period_start_ms=STARTS_MS,
            tail=tail,
        )
    ]


async def test_only_leases_whose_grace_is_over_are_found(stand: Stand) -> None:
    await stand.store.reserve(ask(1, lease_ms=0))
    await stand.store.reserve(ask(2, lease_ms=60_000))
    assert await stand.rids() == [rid_of(1)]
    assert await stand.rids(grace_ms=60_000) == []
    assert await stand.leases.count(SHARD) == 2
    assert await stand.leases.count(1 - SHARD) == 0


async def test_what_was_found_is_there_until_it_is_ended(stand: Stand) -> None:
    await stand.store.reserve(ask(lease_ms=0))
    (lapsed,) = await stand.leases.lapsed(SHARD, 0, 10)
    assert await stand.rids() == [rid_of(1)]
    reply = await stand.store.expire(lapsed, settlement(kind="expire"))
    assert reply.code is SettleCode.SETTLED
    assert await stand.rids() == []
    assert await stand.leases.count(SHARD) == 0


async def test_a_batch_is_limited_and_takes_the_oldest_first(stand: Stand) -> None:
    for number in range(5):
        await stand.store.reserve(ask(number, lease_ms=0))
        await stand.client.zadd(KEYS.of_shard.leases, {KEYS.member(rid_of(number)): 9 - number})
    assert await stand.rids(rows_max=2) == [rid_of(4), rid_of(3)]


async def test_holds_of_several_accounts_are_found_in_their_shard(stand: Stand) -> None:
    other = next(f"o{n}" for n in range(99) if shard_of(f"o{n}", SHARDS) == SHARD)
    far = next(f"f{n}" for n in range(99) if shard_of(f"f{n}", SHARDS) != SHARD)
    for number, payer in enumerate((PAYER, other, far)):
        if payer != PAYER:
            await bring(stand.store, payer)
        await stand.store.reserve(ask(number, payer=payer, lease_ms=0))
    found = await stand.leases.lapsed(SHARD, 0, 10)
    assert {hold.account for hold in found} == {account_digest(PAYER), account_digest(other)}
    assert [hold.rid for hold in await stand.leases.lapsed(1 - SHARD, 0, 10)] == [rid_of(2)]


async def test_a_lease_without_its_hold_is_removed(stand: Stand) -> None:
    await stand.store.reserve(ask(1, lease_ms=0))
    await stand.store.reserve(ask(2, lease_ms=0))
    await stand.client.hdel(KEYS.holds, rid_of(1))
    assert await stand.rids() == [rid_of(2)]
    assert await stand.leases.count(SHARD) == 1


# --- kept endings -------------------------------------------------------------------------------


async def keep_one_of_each(stand: Stand) -> None:
    """1 released unseen, 2 expired, 3 booked late, 4 still open."""
    await (await stand.store.settle(settlement(1, kind="release")))
    await stand.store.reserve(ask(2, lease_ms=0))
    (lapsed,) = await stand.leases.lapsed(SHARD, 0, 10)
    await stand.store.expire(lapsed, settlement(2, kind="expire"))
    assert (await (await stand.store.settle(settlement(3, epoch=0)))).code is SettleCode.LATE
    await stand.store.reserve(ask(4))


async def test_endings_are_kept_for_their_time(stand: Stand) -> None:
    await keep_one_of_each(stand)
    seconds, micros = await stand.client.time()
    now_ms = seconds * 1000 + micros // 1000
    scores = await stand.client.zrange(KEYS.of_shard.endings, 0, -1, withscores=True)
    kept_ms = {member.decode().split(" ")[1]: score - now_ms for member, score in scores}
    assert 0 < kept_ms[rid_of(1)] <= 60_000
    assert DAY_MS - 60_000 < kept_ms[rid_of(2)] <= DAY_MS
    assert DAY_MS - 60_000 < kept_ms[rid_of(3)] <= DAY_MS
    before = await stand.kept()
    assert await stand.rids() == []
    assert await stand.kept() == before == [rid_of(n).encode() for n in (1, 2, 3, 4)]


@pytest.mark.parametrize("number", [1, 2, 3])
async def test_an_ending_whose_time_is_over_is_forgotten_alone(stand: Stand, number: int) -> None:
    await keep_one_of_each(stand)
    await stand.pass_over(number)
    assert await stand.rids() == []
    assert await stand.kept() == [rid_of(n).encode() for n in (1, 2, 3, 4) if n != number]
    assert await stand.client.zcard(KEYS.of_shard.endings) == 2
    assert await stand.leases.count(SHARD) == 1


async def test_a_rid_is_free_when_its_release_is_forgotten(stand: Stand) -> None:
    await (await stand.store.settle(settlement(1, kind="release")))
    assert (await stand.store.reserve(ask(1))).code is ReserveCode.ENDED
    await stand.pass_over(1)
    await stand.leases.lapsed(SHARD, 0, 10)
    assert (await stand.store.reserve(ask(1))).code is ReserveCode.HELD


async def test_a_thousand_endings_are_forgotten_in_batches(stand: Stand) -> None:
    rids = [rid_of(number) for number in range(1010)]
    await stand.client.hset(KEYS.holds, mapping=dict.fromkeys(rids, "v"))
    await stand.client.zadd(KEYS.of_shard.endings, {KEYS.member(rid): 1 for rid in rids})
    left = []
    for _ in range(3):
        await stand.leases.lapsed(SHARD, 0, 10)
        left.append(await stand.client.hlen(KEYS.holds))
    assert left == [510, 10, 0]


async def test_trouble_is_told_as_the_store_being_unavailable(stand: Stand) -> None:
    await stand.client.delete(KEYS.of_shard.leases)
    await stand.client.set(KEYS.of_shard.leases, "not a sorted set")
    with pytest.raises(StoreUnavailable, match=r"^ZRANGEBYSCORE: "):
        await stand.leases.lapsed(SHARD, 0, 10)
    with pytest.raises(StoreUnavailable, match=r"^ZCARD: "):
        await stand.leases.count(SHARD)
