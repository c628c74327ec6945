"""What the sweeper finds: holds that nobody ended, endings whose time is over, and accounts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.adapters.redis_store.keys import account_keys
from gateway.adapters.redis_store.quota_store import RedisQuotaStore
from gateway.core.identity import account_digest, member_digest
from gateway.core.quota.reserve import ReserveCode
from gateway.core.quota.settle import LapsedHold, SettleCode
from gateway.ports.quota_store import Leases, StoreUnavailable
from tests.contract.quota_samples import (
    PAYER,
    SHARD,
    SHARDS,
    STARTS_MS,
    ask,
    bring,
    open_jobs,
    open_store,
    payer_in,
    reserve_lapsed,
    rid_of,
    settlement,
)
from tests.lua.account_fields import with_changes

KEYS = account_keys(PAYER, SHARDS)
DAY_MS = 86_400_000


@dataclass(frozen=True)
class Stand:
    """A store with one account, and the sweeper's view of it."""

    store: RedisQuotaStore
    leases: Leases
    client: Any

    async def rids(self, grace_ms: int = 0, rows_max: int = 100) -> list[str]:
        return [hold.rid for hold in await self.leases.lapsed(SHARD, grace_ms, rows_max)]

    async def kept(self) -> list[bytes]:
        return sorted(await self.client.hkeys(KEYS.holds))

    async def put(self, fields: Mapping[str, int]) -> None:
        """Change these fields of the account."""
        stored = await self.client.hgetall(KEYS.account)
        await self.client.hset(KEYS.account, mapping=with_changes(stored, fields))

    async def pass_over(self, number: int) -> None:
        """Let the time of a kept ending be over."""
        await self.client.zadd(KEYS.of_shard.endings, {KEYS.member(rid_of(number)): 1})


@pytest.fixture
async def stand(each_url: str) -> AsyncIterator[Stand]:
    async with open_store(each_url) as opened, open_jobs(each_url) as jobs:
        await bring(opened.store)
        yield Stand(opened.store, jobs.leases, jobs.client)


async def test_a_lapsed_hold_tells_all_that_its_row_needs(stand: Stand) -> None:
    tail = b'{"payer":"somebody","tag":"with  spaces \\u0000"}' + b"\n\xff"
    await reserve_lapsed(stand.store, ask(tail=tail))
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
    await reserve_lapsed(stand.store, ask(1))
    await stand.store.reserve(ask(2, lease_ms=60_000))
    assert await stand.rids() == [rid_of(1)]
    assert await stand.rids(grace_ms=60_000) == []
    assert await stand.leases.count(SHARD) == 2
    assert await stand.leases.count(1 - SHARD) == 0


async def test_what_was_found_is_there_until_it_is_ended(stand: Stand) -> None:
    await reserve_lapsed(stand.store, ask())
    (lapsed,) = await stand.leases.lapsed(SHARD, 0, 10)
    assert await stand.rids() == [rid_of(1)]
    reply = await stand.store.expire(lapsed, settlement(kind="expire"))
    assert reply.code is SettleCode.SETTLED
    assert await stand.rids() == []
    assert await stand.leases.count(SHARD) == 0


async def test_a_batch_is_limited_and_takes_the_oldest_first(stand: Stand) -> None:
    for number in range(5):
        await reserve_lapsed(stand.store, ask(number))
        await stand.client.zadd(KEYS.of_shard.leases, {KEYS.member(rid_of(number)): 9 - number})
    assert await stand.rids(rows_max=2) == [rid_of(4), rid_of(3)]


async def test_holds_of_several_accounts_are_found_in_their_shard(stand: Stand) -> None:
    other, far = payer_in(SHARD, "other"), payer_in(1 - SHARD, "far")
    for number, payer in enumerate((PAYER, other, far)):
        if payer != PAYER:
            await bring(stand.store, payer)
        await reserve_lapsed(stand.store, ask(number, payer=payer))
    found = await stand.leases.lapsed(SHARD, 0, 10)
    assert {hold.account for hold in found} == {account_digest(PAYER), account_digest(other)}
    assert [hold.rid for hold in await stand.leases.lapsed(1 - SHARD, 0, 10)] == [rid_of(2)]


async def test_a_hold_of_an_older_epoch_is_found_and_ended_without_freeing_anything(
    stand: Stand,
) -> None:
    await reserve_lapsed(stand.store, ask(1))
    await stand.store.open_shard(SHARD, 2, "0-0", 0, ())
    await bring(stand.store)  # the account is new, the hold an orphan
    await stand.store.reserve(ask(2))
    (lapsed,) = await stand.leases.lapsed(SHARD, 0, 10)
    assert (lapsed.rid, lapsed.epoch, lapsed.hold_tokens) == (rid_of(1), 2, 150)
    ending = settlement(1, kind="expire", epoch=lapsed.epoch, charged_tokens=40)
    reply = await stand.store.expire(lapsed, ending)
    assert (reply.code, reply.held_tokens) == (SettleCode.SETTLED, 150)
    assert (reply.used_tokens, reply.epoch) == (40, 2)


async def test_progress_and_tail_come_from_the_last_heartbeat(stand: Stand) -> None:
    await reserve_lapsed(stand.store, ask(tail=b"h 1 2 3 4 5 6 {}"))
    for progress_tokens in (7, 9, 8):
        assert await stand.store.extend(PAYER, rid_of(1), progress_tokens, 0)
    (lapsed,) = await stand.leases.lapsed(SHARD, 0, 10)
    assert (lapsed.progress_tokens, lapsed.tail) == (9, b"h 1 2 3 4 5 6 {}")


@pytest.mark.parametrize(
    "hold",
    [
        *(b"h ", b"o ", b"h garbage", b"h 1 2 3 4 5 6", b"h 1 2 3 4 5 6\n{}", b"h 1 2 3 4 5 {}"),
        *(b"h 1 2 3 4 5 -6 {}", b"h 1 2 3 4 5 6e2 {}", b"o 1  2 3 4 5 6 {}"),
    ],
)
async def test_a_hold_that_nobody_can_read_is_dropped_and_told(
    stand: Stand, hold: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    await reserve_lapsed(stand.store, ask(1))
    await reserve_lapsed(stand.store, ask(2))
    await stand.client.hset(KEYS.holds, rid_of(1), hold)
    assert await stand.rids() == [rid_of(2)]
    assert await stand.kept() == [rid_of(2).encode()]
    assert await stand.leases.count(SHARD) == 1
    assert f"hold {rid_of(1)} is dropped" in caplog.text


@pytest.mark.parametrize("kept", [b"v", b"d", b"x 120 3000 150 1 -", b"something newer"])
async def test_an_ending_is_kept_although_a_lease_of_it_was_left(stand: Stand, kept: bytes) -> None:
    await reserve_lapsed(stand.store, ask())
    await stand.client.hset(KEYS.holds, rid_of(1), kept)
    assert await stand.rids() == []
    assert await stand.client.hget(KEYS.holds, rid_of(1)) == kept
    assert await stand.leases.count(SHARD) == 0


@pytest.mark.parametrize("name", [b"", b"nobody", b"\xff\xfe x", b" ", b"a  b c"])
async def test_a_lease_or_an_ending_without_a_name_stops_no_sweep(
    stand: Stand, name: bytes
) -> None:
    await reserve_lapsed(stand.store, ask())
    await stand.client.zadd(KEYS.of_shard.leases, {name: 1})
    await stand.client.zadd(KEYS.of_shard.endings, {name: 1})
    assert await stand.rids() == [rid_of(1)]
    assert await stand.leases.count(SHARD) == 1
    assert await stand.client.zcard(KEYS.of_shard.endings) == 0


async def test_a_lease_without_its_hold_is_removed(stand: Stand) -> None:
    await reserve_lapsed(stand.store, ask(1))
    await reserve_lapsed(stand.store, ask(2))
    await stand.client.hdel(KEYS.holds, rid_of(1))
    assert await stand.rids() == [rid_of(2)]
    assert await stand.leases.count(SHARD) == 1


# --- kept endings -------------------------------------------------------------------------------


async def keep_one_of_each(stand: Stand) -> None:
    """1 released unseen, 2 expired, 3 booked late, 4 still open."""
    await (await stand.store.settle(settlement(1, kind="release")))
    await reserve_lapsed(stand.store, ask(2))
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


# --- accounts -----------------------------------------------------------------------------------


async def every_account(stand: Stand, rows_max: int) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    position, some = await stand.leases.accounts(0, rows_max)
    while position:
        found.extend(some)
        position, some = await stand.leases.accounts(position, rows_max)
    return sorted({*found, *some})


@pytest.mark.parametrize("rows_max", [1, 7, 1000])
async def test_every_account_of_every_shard_is_found(stand: Stand, rows_max: int) -> None:
    payers = [payer_in(shard, f"p{n}-") for n in range(20) for shard in range(SHARDS)]
    for payer in payers:
        await bring(stand.store, payer)
    team = payers[1]
    await bring(stand.store, team, "ann")
    await stand.store.reserve(ask(payer=payers[0]))  # holds, leases and an outbox lie between
    await (await stand.store.settle(settlement(2, payer=payers[0], epoch=0)))
    shards = {payer: number % SHARDS for number, payer in enumerate(payers)} | {PAYER: SHARD}
    expected = [(account_digest(payer), shard) for payer, shard in shards.items()]
    expected.append((member_digest(team, "ann"), shards[team]))
    assert await every_account(stand, rows_max) == sorted(expected)


async def test_keys_that_only_look_like_accounts_are_passed_over(stand: Stand) -> None:
    for key in (b"qg:{00}:a:", b"qg:{x}:a:y", b"qg:{00}:a:\xff", b"qg:{0}{1}:a:z", b"other:a:b"):
        await stand.client.hset(key, "e", 1)
    assert await every_account(stand, 1000) == [(account_digest(PAYER), SHARD)]


async def test_an_account_is_forgotten_a_period_after_its_end_and_comes_back(stand: Stand) -> None:
    account = account_digest(PAYER)
    assert not await stand.store.forget(account, SHARD)
    now_ms = (await stand.store.reserve(ask())).now_ms
    over = {"ps": now_ms - 120_000, "pe": now_ms - 60_000}
    await stand.put(over)
    assert not await stand.store.forget(account, SHARD)  # its hold is open
    await (await stand.store.settle(settlement(kind="release", period_start_ms=over["ps"])))
    await stand.put({"ps": now_ms - 180_000})
    assert not await stand.store.forget(account, SHARD)  # over for half as long as it lasted
    await stand.put(over)
    assert await stand.store.forget(account, SHARD)
    assert not await stand.store.forget(account, SHARD)
    assert not await stand.client.exists(KEYS.account, KEYS.packs)
    assert (await stand.store.reserve(ask(2))).code is ReserveCode.HYDRATE
    await bring(stand.store)
    assert (await stand.store.reserve(ask(2))).code is ReserveCode.HELD


async def test_trouble_is_told_as_the_store_being_unavailable(stand: Stand) -> None:
    await stand.client.delete(KEYS.of_shard.leases)
    await stand.client.set(KEYS.of_shard.leases, "not a sorted set")
    with pytest.raises(StoreUnavailable, match=r"^ZRANGEBYSCORE: "):
        await stand.leases.lapsed(SHARD, 0, 10)
    with pytest.raises(StoreUnavailable, match=r"^ZCARD: "):
        await stand.leases.count(SHARD)
    with pytest.raises(StoreUnavailable, match=r"^SCAN: "):
        await stand.leases.accounts(0, 0)
