"""What is under way when the store loses it is held again before anybody else may reserve."""

from __future__ import annotations

import asyncio
import logging

import pytest

from gateway.adapters.redis_store.keys import shard_keys
from gateway.core.hold import Ending
from gateway.core.identity import shard_of
from gateway.core.quota.reserve import ReserveCode
from gateway.core.refusal import Case, Refused
from gateway.core.usage import Usage
from gateway.flow.open_holds import OpenHold
from gateway.ports.quota_store import StoreRejected
from tests.fakes.flow_rig import FlowRig, flow_rig, until
from tests.fakes.store import SHARDS, Trouble

ADA = shard_of("ada", SHARDS)
ENDING = Ending(Usage(3, 0, 4, 0), "measured", "done", 200)


async def opened(rig: FlowRig, key: str, max_tokens: int = 100) -> OpenHold:
    call = rig.call(key, max_tokens=max_tokens)
    return rig.open_holds.add((await rig.admission.admit(call)).hold)


async def caught_up(rig: FlowRig) -> None:
    for shard in range(SHARDS):
        await asyncio.wait_for(rig.shards.caught_up(shard), 10)


async def come_back(rig: FlowRig) -> None:
    """The loss is noticed, and everything is sent."""
    await rig.shards.look(rig.store)
    await caught_up(rig)


async def test_what_is_open_is_held_again_and_fills_the_room_it_will_use(rig: FlowRig) -> None:
    key = await rig.user()
    entries = [await opened(rig, key, max_tokens=400) for _ in range(3)]  # the last one is lowered
    await rig.lose_everything()
    await come_back(rig)
    with pytest.raises(Refused) as refused:
        await opened(rig, key)
    assert refused.value.case is Case.QUOTA_IN_FLIGHT
    account = await rig.account()
    assert (account.held_tokens, account.open_holds, account.epoch) == (1000, 3, 2)
    assert sum(entry.hold.hold_tokens for entry in entries) == 1000


async def test_its_end_is_an_ordinary_one_and_is_booked_once(rig: FlowRig) -> None:
    entry = await opened(rig, await rig.user())
    await rig.lose_everything()
    await come_back(rig)
    await rig.settlements.settle(entry.hold, ENDING)
    await rig.settled()
    assert rig.metrics.of("hold_ended")[-1] == "settled"
    (row,) = await rig.rows()
    assert (row.charged_tokens, row.held_tokens, row.epoch) == (7, entry.hold.hold_tokens, 2)
    await rig.drain()
    await rig.hydrator.hydrate("ada", rig.period)
    account = await rig.account()
    assert (account.settled_tokens, account.held_tokens) == (7, 0)


async def test_a_gateway_is_awaited_until_it_has_said_what_is_open(rig: FlowRig) -> None:
    await rig.shards.join("me")
    await opened(rig, await rig.user())
    await rig.lose_everything()
    awaited = []

    async def note(where: str) -> None:
        if where.endswith("reassert"):
            awaited.append(await rig.redis.client.hget(shard_keys(ADA).meta, "w"))

    rig.store.pause = note
    await come_back(rig)
    assert awaited == [b"me"] * 4  # the account was to be begun in between
    assert await rig.redis.client.hget(shard_keys(ADA).meta, "w") is None


async def test_a_hold_whose_end_has_been_sent_is_not_held_again(rig: FlowRig) -> None:
    """Its answer may still be on the way to a slow client."""
    entry = await opened(rig, await rig.user())
    await rig.settlements.settle(entry.hold, ENDING)
    await rig.drain()  # in the ledger: nothing in the store will tell that it has ended
    await rig.lose_everything()
    await come_back(rig)
    assert "reassert" not in rig.store.asked


async def test_a_server_that_lost_only_a_hold_has_gone_back_and_holds_it_again(
    rig: FlowRig,
) -> None:
    key = await rig.user()
    await rig.spend(key)
    saved = rig.redis.saved()
    entry = await opened(rig, key)
    rig.redis.go_back(saved)
    await rig.shards.open_all()
    await rig.shards.caught_up(ADA)
    assert rig.ledger.at[ADA].epoch == 2
    assert await rig.redis.leases.count(ADA) == 1
    await rig.settlements.settle(entry.hold, ENDING)
    await rig.settled()
    assert rig.metrics.of("hold_ended")[-1] == "settled"


@pytest.mark.parametrize("how", ["settled", "expired", "settled while it is asked"])
async def test_a_hold_that_has_ended_is_no_loss(rig: FlowRig, how: str) -> None:
    entry = await opened(rig, await rig.user())

    async def end(where: str) -> None:
        if where == "before known":
            rig.store.pause = None
            await rig.settlements.settle(entry.hold, ENDING)
            await rig.settled()

    if how == "settled":
        await rig.settlements.settle(entry.hold, ENDING)
        await rig.settled()
    elif how == "expired":
        await rig.expire()
    else:
        rig.store.pause = end
    await rig.shards.open_all()
    assert rig.ledger.at[ADA].epoch == 1


async def test_a_settlement_that_comes_between_wins(rig: FlowRig) -> None:
    entry = await opened(rig, await rig.user())

    async def end(where: str) -> None:
        if where == "before hydrate_begin":
            rig.store.pause = None
            await rig.settlements.settle(entry.hold, ENDING)
            await rig.settled()

    await rig.lose_everything()
    rig.store.pause = end
    await come_back(rig)
    assert rig.metrics.of("hold_ended")[-1] == "late"
    assert [row.charged_tokens for row in await rig.rows()] == [7]
    assert await rig.redis.leases.count(ADA) == 0
    assert not entry.over


@pytest.mark.parametrize("trouble", ["never arrives", "reply lost"])
async def test_trouble_of_the_store_is_outlasted(rig: FlowRig, trouble: Trouble) -> None:
    entry = await opened(rig, await rig.user())
    await rig.lose_everything()
    for name in ("reassert", "hydrate_begin", "reassert"):
        rig.store.trouble(name, trouble)
    await come_back(rig)
    assert await rig.redis.leases.count(ADA) == 1
    assert not entry.over


async def test_one_that_is_rejected_does_not_hold_up_the_others(
    rig: FlowRig, caplog: pytest.LogCaptureFixture
) -> None:
    key = await rig.user()
    entries = [await opened(rig, key) for _ in range(2)]
    await rig.lose_everything()
    rig.store.trouble("reassert", StoreRejected("reassert: an argument is not a whole amount"))
    with caplog.at_level(logging.ERROR, "gateway.holds"):
        await come_back(rig)
    assert entries[0].hold.rid in caplog.text
    assert await rig.redis.leases.count(ADA) == 1


async def test_what_the_sweeper_has_ended_in_the_new_epoch_is_over(rig: FlowRig) -> None:
    entry = await opened(rig, await rig.user())
    await rig.ledger.raise_epoch(ADA, 1)
    await rig.store.open_shard(ADA, 2, "0-0", 0, ())
    await rig.expire()
    await come_back(rig)
    assert entry.over


async def test_a_heartbeat_that_comes_first_ends_no_stream(rig: FlowRig) -> None:
    entry = await opened(rig, await rig.user())
    await rig.lose_everything()
    rig.clock.pass_s(10)
    await rig.open_holds.beat()  # the server knows nothing at all
    assert not entry.over
    await rig.ledger.raise_epoch(ADA, 1)
    await rig.store.open_shard(ADA, 2, "0-0", 0, ())  # by another, and not yet noticed here
    await rig.open_holds.beat()
    assert not entry.over
    assert await rig.redis.leases.count(ADA) == 1


async def test_members_are_held_by_their_team_too(rig: FlowRig) -> None:
    await rig.user("team", "lite")
    entry = await opened(rig, await rig.member("cy", "team"))
    await rig.lose_everything()
    await come_back(rig)
    await rig.hydrator.hydrate("team", rig.period, "cy")
    team, member = await rig.account("team"), await rig.store.snapshot("team", "cy")
    assert member is not None
    assert team.held_tokens == member.held_tokens == entry.hold.hold_tokens


async def test_a_hold_that_was_told_after_its_epoch_was_lost_is_asked_for_again(
    rig: FlowRig,
) -> None:
    key = await rig.user()
    await rig.spend(key)
    await rig.drain()

    async def lose(where: str) -> None:
        if where == "after reserve":
            rig.store.pause = None
            await rig.lose_everything()
            await come_back(rig)

    rig.store.pause = lose
    admitted = await rig.admission.admit(rig.call(key))
    assert admitted.hold.epoch == 2
    assert (await rig.account()).held_tokens == admitted.hold.hold_tokens


async def test_many_are_said_some_at_once() -> None:
    async with flow_rig() as rig:
        keys = [await rig.user(f"user-{number}", "lite") for number in range(4)]
        for number in range(80):
            await opened(rig, keys[number % 4])
        await rig.lose_everything()
        await come_back(rig)
        held = [await rig.redis.leases.count(shard) for shard in range(SHARDS)]
        assert sum(held) == 80
        ask = rig.store.asks[-1]
        assert (await rig.store.reserve(ask)).code is ReserveCode.HYDRATE
        await until(lambda: len(rig.open_holds) == 80)
