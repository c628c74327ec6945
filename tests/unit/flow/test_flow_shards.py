"""A shard's epoch rises where Redis has lost something, and nowhere else."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gateway.core.identity import shard_of
from gateway.flow import shards as shards_module
from gateway.flow.recent import RecentSettlements
from gateway.flow.shards import Shards
from gateway.ports.ledger import Cursor, LedgerUnavailable
from gateway.ports.quota_store import ShardState, StoreUnavailable
from tests.fakes.flow_rig import FlowRig, until
from tests.fakes.store import SHARDS

ADA = shard_of("ada", SHARDS)


def gateway(rig: FlowRig) -> Shards:
    """Another process, just started."""
    return Shards(rig.store, rig.ledger, SHARDS, RecentSettlements())


async def epochs(rig: FlowRig) -> list[int]:
    found = await rig.store.epochs()
    return [found[shard] for shard in range(SHARDS)]


def granted(rig: FlowRig) -> list[int]:
    """The shards' epochs by the ledger."""
    return [rig.ledger.at[shard].epoch for shard in range(SHARDS)]


async def newest(rig: FlowRig) -> str:
    outbox = f"qg:{{{ADA:02d}}}:o"
    if not await rig.redis.client.exists(outbox):
        return "0-0"
    told: bytes = (await rig.redis.client.xinfo_stream(outbox))["last-generated-id"]
    return told.decode()


async def test_a_fresh_server_begins_with_the_first_epoch_and_no_quiet_time(rig: FlowRig) -> None:
    assert rig.store.opened == [(0, 1, "0-0", ()), (1, 1, "0-0", ())]
    assert await epochs(rig) == granted(rig) == [1, 1]


async def test_several_processes_that_start_together_find_one_epoch(rig: FlowRig) -> None:
    rig.ledger.at.clear()
    await rig.lose_everything()
    await asyncio.gather(*(gateway(rig).open_all() for _ in range(4)))
    assert await epochs(rig) == granted(rig) == [1, 1]


async def test_an_open_shard_stays_as_it_is_and_asks_no_ledger(rig: FlowRig) -> None:
    rig.ledger.away = True
    await rig.shards.open_all()
    assert await rig.shards.open(0) == 1
    assert await epochs(rig) == [1, 1]


async def test_a_gateway_with_another_number_of_shards_is_not_let_in(rig: FlowRig) -> None:
    await rig.redis.client.hset("qg:{00}:m", "n", 16)
    with pytest.raises(StoreUnavailable, match=r"set redis\.shards to 16"):
        await rig.shards.open(0)


# --- emptied -----------------------------------------------------------------------------------


@pytest.mark.parametrize("is_new", [False, True])
async def test_an_emptied_server_begins_a_new_epoch_each_time(rig: FlowRig, is_new: bool) -> None:
    for expected in (2, 3):
        await rig.lose_everything()
        await (gateway(rig) if is_new else rig.shards).open_all()
        assert await epochs(rig) == granted(rig) == [expected, expected]


@pytest.mark.parametrize("is_new", [False, True])
async def test_a_closed_shard_that_a_call_finds_begins_a_new_epoch(
    rig: FlowRig, is_new: bool
) -> None:
    await rig.lose_everything()
    assert await (gateway(rig) if is_new else rig.shards).open(ADA) == 2
    assert rig.ledger.at[ADA].epoch == 2


async def test_a_new_epoch_s_events_come_after_all_that_the_ledger_has_booked(
    rig: FlowRig,
) -> None:
    far = f"{rig.clock.now_ms() + 10**9}-5"
    rig.ledger.at[ADA] = Cursor(1, far, "")
    await rig.lose_everything()
    await rig.shards.open_all()
    assert await newest(rig) == far


async def test_a_new_epoch_begins_where_the_ledger_is_however_much_was_seen(rig: FlowRig) -> None:
    await rig.spend(await rig.user())
    await rig.lose_everything()
    await gateway(rig).open_all()
    # Further on, a hydration would wait for an event that may never come.
    assert await newest(rig) == rig.ledger.at[ADA].stream_id == "0-0"


async def test_without_the_ledger_a_lost_shard_stays_closed(rig: FlowRig) -> None:
    await rig.lose_everything()
    rig.ledger.away = True
    with pytest.raises(LedgerUnavailable):
        await rig.shards.open_all()
    assert await epochs(rig) == [0, 0]


@pytest.mark.parametrize("lost", ["all", "the newest"])
async def test_of_several_gateways_that_find_a_loss_together_one_raises_the_epoch(
    rig: FlowRig, lost: str
) -> None:
    key = await rig.user()
    await rig.spend(key)
    saved = rig.redis.saved()
    await rig.spend(key)
    others = [gateway(rig) for _ in range(3)]
    for each in others:
        await each.open_all()
    if lost == "all":
        await rig.lose_everything()
    else:
        rig.redis.go_back(saved)
    found = await asyncio.gather(*(each.open(ADA) for each in [*others, rig.shards, *others]))
    assert set(found) == {2}
    assert rig.ledger.at[ADA].epoch == 2


# --- gone back in time -------------------------------------------------------------------------


async def test_a_server_without_an_event_that_it_confirmed_has_gone_back(rig: FlowRig) -> None:
    key = await rig.user()
    await rig.spend(key)
    saved = rig.redis.saved()
    await rig.spend(key)
    rig.redis.go_back(saved)
    await rig.shards.open_all()
    assert (await epochs(rig))[ADA] == rig.ledger.at[ADA].epoch == 2
    assert (await epochs(rig))[1 - ADA] == 1


async def test_a_loss_is_noticed_though_one_who_had_seen_less_has_written_since(
    rig: FlowRig,
) -> None:
    key = await rig.user()
    saved = rig.redis.saved()
    await rig.spend(key)
    rig.redis.go_back(saved)
    later = f"{rig.clock.now_ms() + 10**9}-0"
    await rig.redis.client.xadd(f"qg:{{{ADA:02d}}}:o", {"e": "{}", "b": "-"}, id=later)
    await rig.shards.open_all()
    assert (await epochs(rig))[ADA] == 2


async def test_so_it_is_though_what_hides_it_is_booked(rig: FlowRig) -> None:
    key = await rig.user()
    await rig.spend(key)
    saved = rig.redis.saved()
    await rig.spend(key)
    rig.redis.go_back(saved)
    later = f"{rig.clock.now_ms() + 10**9}-0"
    await rig.redis.client.xadd(f"qg:{{{ADA:02d}}}:o", {"e": "{}", "b": "-"}, id=later)
    rig.ledger.at[ADA] = replace(rig.ledger.at[ADA], stream_id=later)
    await rig.shards.open_all()
    assert (await epochs(rig))[ADA] == 2
    await rig.shards.caught_up(ADA)
    assert len(await rig.redis.streams.read({ADA: later}, 9, 1)) == 2  # all is sent again


@pytest.mark.parametrize("is_booked", [False, True])
async def test_what_the_ledger_has_and_redis_does_not_is_a_loss_though_newer_events_hide_it(
    rig: FlowRig, is_booked: bool
) -> None:
    key = await rig.user()
    await rig.spend(key)
    saved = rig.redis.saved()
    await rig.spend(key)
    if is_booked:
        await rig.drain()
    rig.redis.go_back(saved)
    later = f"{rig.clock.now_ms() + 10**9}-0"
    await rig.redis.client.xadd(f"qg:{{{ADA:02d}}}:o", {"e": "{}", "b": "-"}, id=later)
    await gateway(rig).open_all()
    assert (await epochs(rig))[ADA] == (2 if is_booked else 1)


async def test_what_is_booked_and_trimmed_is_no_loss(rig: FlowRig) -> None:
    await rig.spend(await rig.user())
    await rig.drain()
    newer = await rig.redis.client.xadd(f"qg:{{{ADA:02d}}}:o", {"e": "{}", "b": "-"})
    await rig.redis.client.xtrim(f"qg:{{{ADA:02d}}}:o", minid=newer, approximate=False)
    await rig.shards.open_all()
    await rig.redis.client.xtrim(f"qg:{{{ADA:02d}}}:o", maxlen=0, approximate=False)
    await rig.shards.open_all()
    assert (await epochs(rig))[ADA] == 1


async def test_what_an_epoch_began_past_is_no_loss(rig: FlowRig) -> None:
    await rig.spend(await rig.user())
    await rig.drain()
    await rig.lose_everything()
    for _ in range(3):
        await rig.shards.open_all()
        await gateway(rig).open_all()
    assert (await epochs(rig))[ADA] == 2


async def test_a_server_that_has_less_than_the_ledger_booked_has_gone_back(rig: FlowRig) -> None:
    key = await rig.user()
    await rig.spend(key)
    saved = rig.redis.saved()
    row = await rig.spend(key)
    await rig.drain()
    rig.redis.go_back(saved)
    await gateway(rig).open_all()
    assert (await epochs(rig))[ADA] == 2
    assert await newest(rig) == row.stream_id


@pytest.mark.parametrize("is_new", [False, True])
async def test_a_server_of_an_older_epoch_than_was_granted_has_gone_back(
    rig: FlowRig, is_new: bool
) -> None:
    saved = rig.redis.saved()
    await rig.lose_everything()
    await rig.shards.open_all()
    rig.redis.go_back(saved)
    await (gateway(rig) if is_new else rig.shards).open_all()
    # Not 2 once more: what was held and settled in the lost epoch 2 must not pass for this one's.
    assert await epochs(rig) == granted(rig) == [3, 3]


async def test_a_server_that_went_back_is_left_alone_until_the_ledger_is_there(
    rig: FlowRig,
) -> None:
    saved = rig.redis.saved()
    await rig.spend(await rig.user())
    rig.redis.go_back(saved)
    rig.ledger.away = True
    with pytest.raises(LedgerUnavailable):
        await rig.shards.open_all()
    assert (await epochs(rig))[ADA] == 1
    rig.ledger.away = False
    await rig.shards.open_all()
    assert (await epochs(rig))[ADA] == 2


@pytest.mark.parametrize("ledger_is_away", [False, True])
async def test_a_server_that_is_merely_new_raises_nothing(
    rig: FlowRig, ledger_is_away: bool
) -> None:
    await rig.spend(await rig.user())
    await rig.drain()
    rig.redis.go_back(rig.redis.saved())
    opened = len(rig.store.opened)
    rig.ledger.away = ledger_is_away
    for each in (rig.shards, gateway(rig)):
        await each.open_all()
    assert await epochs(rig) == granted(rig) == [1, 1]
    assert {awaited for *_, awaited in rig.store.opened[opened:]} == {()}


async def test_an_event_that_is_confirmed_while_shards_are_compared_does_not_look_lost(
    rig: FlowRig,
) -> None:
    async def confirm(where: str) -> None:
        if where == "after shard_state":
            rig.shards.noted(ADA, ShardState(1, f"{rig.clock.now_ms() + 10**6}-0"))

    rig.store.pause = confirm
    assert await rig.shards.open(ADA) == 1
    assert rig.ledger.at[ADA].epoch == 1


async def test_what_the_ledger_has_of_a_shard_it_lost_track_of_is_no_loss(rig: FlowRig) -> None:
    """A ledger restored from a backup is behind Redis, which is no fault of Redis."""
    await rig.spend(await rig.user())
    rig.ledger.at[ADA] = replace(rig.ledger.at[ADA], epoch=0)
    await gateway(rig).open_all()
    assert await epochs(rig) == [1, 1]


# --- who is waited for -------------------------------------------------------------------------


async def test_after_a_loss_nothing_is_reserved_until_every_gateway_alive_has_sent(
    rig: FlowRig,
) -> None:
    other = gateway(rig)
    await other.open_all()
    await rig.shards.join("one")
    await other.join("two")
    await rig.spend(await rig.user())
    await rig.lose_everything()
    assert await rig.shards.open(ADA) == 2
    assert (ADA, 2, "0-0", ("one", "two")) in rig.store.opened
    await rig.shards.caught_up(ADA)
    assert await quiet_for(rig) == "two"
    await other.look(rig.store)
    await other.caught_up(ADA)
    assert await quiet_for(rig) == ""


async def quiet_for(rig: FlowRig) -> str:
    """Who is awaited in ada's shard."""
    found = await rig.redis.client.hget(f"qg:{{{ADA:02d}}}:m", "w")
    return (found or b"").decode()


async def test_a_gateway_says_that_it_has_caught_up_only_once_all_of_it_is_there(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards_module, "_FIRST_PAUSE_S", 0.001)
    await rig.shards.join("one")
    await rig.spend(await rig.user())
    await rig.lose_everything()
    rig.store.trouble("settle", "reply lost")
    rig.store.asked.clear()
    await rig.shards.open(ADA)
    await rig.shards.caught_up(ADA)
    told = [name for name in rig.store.asked if name in ("settle", "caught_up")]
    assert told == ["settle", "settle", "caught_up"]


async def test_a_process_that_settles_nothing_is_not_waited_for(rig: FlowRig) -> None:
    await rig.lose_everything()
    rig.store.asked.clear()
    await rig.shards.open_all()
    await rig.shards.caught_up(ADA)
    assert {awaited for *_, awaited in rig.store.opened} == {()}
    assert "caught_up" not in rig.store.asked


@pytest.mark.parametrize("redis_is_away", [False, True])
async def test_a_gateway_says_that_it_is_alive_also_while_redis_is_away(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch, redis_is_away: bool
) -> None:
    """Most losses come with an outage, and after it every gateway must be waited for."""
    monkeypatch.setattr(shards_module, "_LOOK_EVERY_S", 0.001)
    monkeypatch.setattr(shards_module, "_SAY_EVERY_S", 0.004)
    await rig.shards.join("one")
    rig.store.away = redis_is_away
    watching = asyncio.ensure_future(rig.shards.watch_forever(rig.store))
    for _ in range(3):
        rig.ledger.alive.clear()
        await until(lambda: rig.ledger.alive)
    await until(lambda: rig.store.asked.count("epochs") >= 3)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
