"""Calls to a cluster whose nodes fail and whose slots move, over both clients."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.embedded import EmbeddedError
from gateway.adapters.prometheus_metrics import ProxyMetrics
from gateway.adapters.redis_store.keys import KEYS_BEGIN, shard_keys
from gateway.adapters.redis_store.quota_store import RedisQuotaStore
from gateway.adapters.redis_store.urls import node_urls, sentinel_place
from gateway.app.redis_parts import RedisParts, RedisTerms, open_redis
from gateway.core.quota.settle import SettleCode
from gateway.ports.quota_store import StoreUnavailable
from gateway.ports.tasks import spawn
from tests.contract.quota_samples import (
    PAYER,
    SCRIPTS,
    SHARD,
    SHARDS,
    ask,
    bring,
    open_store,
    payer_in,
    settlement,
)
from tests.redis_nodes import (
    RedisCluster,
    RedisNode,
    cluster_node,
    is_ready,
    join,
    open_cluster,
    slot_of,
    until,
)

OTHER = payer_in(1 - SHARD, "other")


@pytest.fixture
def own_cluster(missing: Callable[[str], NoReturn], tmp_path: Path) -> Iterator[RedisCluster]:
    """A cluster whose nodes may be killed."""
    try:
        with open_cluster(tmp_path) as cluster:
            yield cluster
    except EmbeddedError as error:
        missing(str(error))


def move(slot: int, source: RedisNode, target: RedisNode, others: list[RedisNode]) -> None:
    """Hand a slot over as redis-cli does, key by key.
    https://redis.io/docs/latest/commands/cluster-setslot/"""
    ids = [node.client.execute_command("CLUSTER", "MYID").decode() for node in (source, target)]
    target.client.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
    source.client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
    while keys := source.client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1):
        time.sleep(0.01)  # as a slot with much in it takes
        source.client.execute_command("MIGRATE", "127.0.0.1", target.port, keys[0], 0, 5000)
    for node in (target, source, *others):
        node.client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])


async def test_a_slot_that_moves_under_calls_loses_none_and_counts_none_twice(
    own_cluster: RedisCluster, client: str
) -> None:
    source = own_cluster.owner_of(SHARD)
    target, other = (node for node in own_cluster.nodes if node is not source)

    async def until_answered(call: Callable[[], Any]) -> Any:
        """Repeated by the same rid until there is an answer, as the gateway does."""
        while True:
            try:
                return await call()
            except StoreUnavailable:
                await asyncio.sleep(0.01)

    async with open_store(own_cluster.url, 0.15, client) as opened:
        store = opened.store
        await bring(store)
        moved = asyncio.Event()

        async def whole(number: int) -> None:
            held = await until_answered(lambda: store.reserve(ask(number)))
            assert held.hold_tokens == 150

            async def settle() -> SettleCode:
                return (await (await store.settle(settlement(number)))).code

            # NOTHING_OPEN: it was settled by a call whose answer was lost.
            assert await until_answered(settle) in (SettleCode.SETTLED, SettleCode.NOTHING_OPEN)

        async def worker(first: int) -> int:
            number = first
            while not moved.is_set() or number < first + 20:
                await whole(number)
                number += 1
            return number - first

        workers = [spawn(worker(n * 100_000), "calls", awaited=True) for n in range(8)]
        slot = slot_of(SHARD)
        for a, b in ((source, target), (target, source), (source, target)):
            await asyncio.to_thread(move, slot, a, b, [other])
        moved.set()
        calls = sum(await asyncio.gather(*workers))
        seen = await store.snapshot(PAYER)
        assert seen is not None
        assert (seen.settled_tokens, seen.held_tokens) == (120 * calls, 0)
    assert target.client.xlen(shard_keys(SHARD).outbox) == calls


async def test_a_slot_that_was_handed_over_costs_its_next_call_one_hop(
    own_cluster: RedisCluster, client: str
) -> None:
    source = own_cluster.owner_of(SHARD)
    target, other = (node for node in own_cluster.nodes if node is not source)
    async with open_store(own_cluster.url, 0.15, client) as opened:
        await bring(opened.store)
        assert (await opened.store.reserve(ask(1))).hold_tokens == 150
        move(slot_of(SHARD), source, target, [other])
        assert (await opened.store.reserve(ask(2))).hold_tokens == 150
        assert (await (await opened.store.settle(settlement(1)))).code is SettleCode.SETTLED
        epochs = await opened.store.epochs()
    assert epochs == {SHARD: 1, 1 - SHARD: 0}


@pytest.fixture
async def parts(own_cluster: RedisCluster, client: str) -> AsyncIterator[tuple[RedisParts, Any]]:
    """The product's own parts on a cluster, and which shards were compared for a new server."""
    compared: list[list[int]] = []

    async def compare(shards: Any) -> None:
        compared.append(sorted(shards))

    terms = RedisTerms(own_cluster.url, client, SHARDS, 5.0)
    async with open_redis(terms, ProxyMetrics({}), SystemClock(), compare) as opened:
        for script in SCRIPTS.values():
            await opened.direct.command("SCRIPT", "LOAD", script.source)
        yield opened, compared


async def test_a_dead_node_keeps_its_own_shards_waiting_and_no_others(
    own_cluster: RedisCluster, parts: tuple[RedisParts, Any]
) -> None:
    opened, compared = parts
    store = RedisQuotaStore(opened.calls, SCRIPTS, SHARDS)
    for payer in (PAYER, OTHER):
        await bring(store, payer)
    assert sorted(compared) == [[0], [1]]  # each node's own shards
    owner = own_cluster.owner_of(SHARD)
    owner.kill()
    for number in range(20):
        began_s = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await store.reserve(ask(number))
        assert time.monotonic() - began_s < 2.5  # nobody waits for the deadline
        held = await store.reserve(ask(number, payer=OTHER))
        assert held.hold_tokens == 150
        ended = await (await store.settle(settlement(number, payer=OTHER)))
        assert ended.code is SettleCode.SETTLED
    with pytest.raises(StoreUnavailable, match="trying again"):  # nobody is asked any more
        await store.reserve(ask(99))
    assert await store.epochs() == {1 - SHARD: 1}
    entries = await opened.streams.read(dict.fromkeys(range(SHARDS), "0-0"), 100, 1)
    assert [entry.shard for entry in entries] == [1 - SHARD] * 20
    without = await opened.streams.server_id()

    owner.start()  # with what it had
    async with asyncio.timeout(20):
        while True:
            try:
                held = await store.reserve(ask(100))
                break
            except StoreUnavailable:
                await asyncio.sleep(0.05)
    assert held.hold_tokens == 150
    assert compared[2:] == [[SHARD]]  # another process: it might have lost something
    assert await opened.streams.server_id() != without


async def test_a_replica_that_takes_over_is_compared_before_it_is_used(
    own_cluster: RedisCluster, parts: tuple[RedisParts, Any], tmp_path: Path
) -> None:
    opened, compared = parts
    store = RedisQuotaStore(opened.calls, SCRIPTS, SHARDS)
    for payer in (PAYER, OTHER):
        await bring(store, payer)
    owner = own_cluster.owner_of(SHARD)
    replica = cluster_node(tmp_path / "replica")
    try:
        join(replica, owner)
        until(lambda: is_ready(replica, 4), "it does not join")
        replica.client.execute_command(
            "CLUSTER", "REPLICATE", owner.client.execute_command("CLUSTER", "MYID").decode()
        )
        until(lambda: replica.client.info("replication").get("master_link_status") == "up", "link")
        assert (await store.reserve(ask(1))).hold_tokens == 150
        # WAIT is about what its own connection wrote; that comes after the hold.
        owner.client.set(f"{shard_keys(SHARD).meta}:written", 1)
        assert owner.client.wait(1, 5000) == 1
        owner.kill()
        async with asyncio.timeout(30):
            while True:
                try:
                    ended = await (await store.settle(settlement(1)))
                    break
                except StoreUnavailable:
                    await asyncio.sleep(0.05)
        # NOTHING_OPEN: it was settled by a call whose answer was lost.
        assert ended.code in (SettleCode.SETTLED, SettleCode.NOTHING_OPEN)
        assert replica.client.xlen(shard_keys(SHARD).outbox) == 1
        assert compared[2:] == [[SHARD]]
    finally:
        replica.end()


async def test_all_shards_accounts_are_found_node_by_node(
    own_cluster: RedisCluster, parts: tuple[RedisParts, Any]
) -> None:
    opened, _ = parts
    for place in range(30):
        shard = place % SHARDS
        key = f"{KEYS_BEGIN}{shard:02d}}}:a:name{place}"
        own_cluster.owner_of(shard).client.hset(key, "e", 1)
    found: list[tuple[str, int]] = []
    position = rounds = 0
    while position or not rounds:
        position, accounts = await opened.leases.accounts(position, 5)
        found.extend(accounts)
        rounds += 1
    assert sorted(found) == sorted((f"name{place}", place % SHARDS) for place in range(30))


def test_what_stands_in_a_url_reaches_each_node() -> None:
    assert node_urls("rediss+cluster://u:p%40w@a:7000,b,[::1]:7002?ssl_ca_certs=/ca") == (
        "rediss://u:p%40w@a:7000?ssl_ca_certs=/ca",
        "rediss://u:p%40w@b:6379?ssl_ca_certs=/ca",
        "rediss://u:p%40w@[::1]:7002?ssl_ca_certs=/ca",
    )
    place = sentinel_place("redis+sentinel://u:p%40w@a,b:1/main/3?sentinel_password=s%20s")
    assert place.sentinels == (("a", 26379), ("b", 1))
    assert (place.service, dict(place.login)) == ("main", {"password": "s s"})
    assert dict(place.options) == {"username": "u", "password": "p@w", "db": 3}
