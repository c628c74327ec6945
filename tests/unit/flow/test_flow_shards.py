"""A shard opens at an epoch the ledger granted, and an open one stays as it is."""

from __future__ import annotations

import asyncio

import pytest

from gateway.flow.shards import Shards
from gateway.ports.ledger import LedgerUnavailable
from gateway.ports.quota_store import StoreUnavailable
from tests.fakes.flow_rig import FlowRig
from tests.fakes.store import SHARDS


async def epochs(rig: FlowRig) -> list[int]:
    return [await rig.store.epoch(shard) for shard in range(SHARDS)]


async def test_every_shard_is_open_before_traffic(rig: FlowRig) -> None:
    assert await epochs(rig) == [1, 1]


async def test_opening_an_open_shard_changes_nothing_and_asks_no_ledger(rig: FlowRig) -> None:
    rig.ledger.away = True
    await rig.shards.open_all()
    assert await rig.shards.open(0) == 1
    assert await epochs(rig) == [1, 1]


async def test_an_emptied_store_begins_a_new_epoch(rig: FlowRig) -> None:
    for expected in (2, 3):
        await rig.lose_everything()
        await rig.shards.open_all()
        assert await epochs(rig) == [expected, expected]


async def test_a_new_epoch_s_events_come_after_all_that_the_ledger_has_booked(
    rig: FlowRig,
) -> None:
    far = f"{rig.clock.now_ms() + 10**9}-5"
    rig.ledger.at[0] = (1, far)
    await rig.lose_everything()
    await rig.shards.open_all()
    assert (await rig.redis.streams.last_ids())[0] == far


async def test_of_two_gateways_that_open_a_shard_both_find_one_epoch(rig: FlowRig) -> None:
    await rig.lose_everything()
    other = Shards(rig.store, rig.ledger, SHARDS)
    found = await asyncio.gather(*(each.open(0) for each in (rig.shards, other) * 3))
    assert set(found) == {await rig.store.epoch(0)}


async def test_without_the_ledger_a_lost_shard_stays_closed(rig: FlowRig) -> None:
    await rig.lose_everything()
    rig.ledger.away = True
    with pytest.raises(LedgerUnavailable):
        await rig.shards.open_all()
    assert await epochs(rig) == [0, 0]


async def test_a_gateway_with_another_number_of_shards_is_not_let_in(rig: FlowRig) -> None:
    await rig.redis.client.hset("qg:{00}:m", "n", 16)
    with pytest.raises(StoreUnavailable, match=r"set redis\.shards to 16"):
        await rig.shards.open(0)
