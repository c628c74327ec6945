"""What Redis lost before the ledger had it is sent again, first of all, and booked once."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

import pytest

from gateway.core.hold import Ending
from gateway.core.identity import shard_of
from gateway.core.usage import Usage
from gateway.flow import shards as shards_module
from gateway.flow.recent import RecentSettlements
from gateway.flow.shards import Shards
from gateway.ports.quota_store import ShardState, StoreRejected
from tests.fakes.flow_rig import FlowRig, until
from tests.fakes.store import SHARDS, Trouble

ADA = shard_of("ada", SHARDS)
ENDING = Ending(Usage(20, 0, 30, 0), "measured", "done", 200)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(shards_module, "_LONGEST_PAUSE_S", 0.004)


async def caught_up(rig: FlowRig) -> None:
    async with asyncio.timeout(10):
        await rig.shards.caught_up(ADA)


async def raised_by_another(rig: FlowRig) -> Shards:
    """The server is emptied, and another gateway is the first to find out."""
    other = Shards(rig.store, rig.ledger, SHARDS, RecentSettlements())
    await other.open_all()
    await rig.lose_everything()
    await other.open_all()
    rig.store.sent.clear()
    return other


async def booked(rig: FlowRig) -> list[tuple[str, int]]:
    """(rid, epoch) of what is in the outbox now."""
    return [(row.event_id, row.epoch) for row in await rig.rows()]


# --- whoever notices ---------------------------------------------------------------------------


async def test_an_epoch_that_another_gateway_raised_is_noticed_by_a_look(rig: FlowRig) -> None:
    row = await rig.spend(await rig.user())
    await raised_by_another(rig)
    await rig.shards.look(rig.store)
    await caught_up(rig)
    assert await booked(rig) == [(row.event_id, 2)]


async def test_an_epoch_that_another_gateway_raised_is_noticed_by_opening(rig: FlowRig) -> None:
    row = await rig.spend(await rig.user())
    await raised_by_another(rig)
    assert await rig.shards.open(ADA) == 2
    await caught_up(rig)
    assert await booked(rig) == [(row.event_id, 2)]


async def test_an_epoch_that_another_gateway_raised_is_noticed_by_a_settlement(
    rig: FlowRig,
) -> None:
    key = await rig.user()
    row = await rig.spend(key)
    hold = (await rig.admission.admit(rig.call(key))).hold
    await raised_by_another(rig)
    await rig.settlements.settle(hold, ENDING)
    await rig.settled()
    await caught_up(rig)
    assert sorted(await booked(rig)) == [(row.event_id, 2), (hold.rid, 2)]


async def test_a_look_opens_a_shard_that_nobody_has_opened_yet(rig: FlowRig) -> None:
    row = await rig.spend(await rig.user())
    await rig.lose_everything()
    await rig.shards.look(rig.store)
    await caught_up(rig)
    assert await rig.store.epochs() == {0: 2, 1: 2}
    assert await booked(rig) == [(row.event_id, 2)]


async def test_a_look_at_what_is_known_sends_nothing(rig: FlowRig) -> None:
    await rig.spend(await rig.user())
    rig.store.sent.clear()
    await rig.shards.look(rig.store)
    await caught_up(rig)
    assert rig.store.sent == []


async def test_the_watch_looks_on_after_trouble(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards_module, "_LOOK_EVERY_S", 0.001)
    watching = asyncio.ensure_future(rig.shards.watch_forever(rig.store))
    rig.store.away = True
    looked = rig.store.asked.count("epochs")
    await until(lambda: rig.store.asked.count("epochs") > looked + 2)
    rig.store.away = False
    await rig.lose_everything()
    await until(lambda: rig.ledger.at[ADA].epoch == 2)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching


# --- what is sent ------------------------------------------------------------------------------


async def test_only_what_the_ledger_has_not_booked_is_sent(rig: FlowRig) -> None:
    key = await rig.user()
    rows = [await rig.spend(key) for _ in range(3)]
    await rig.drain(last=1)
    await raised_by_another(rig)
    await rig.shards.look(rig.store)
    await caught_up(rig)
    assert sorted(each.rid for each in rig.store.sent) == [row.event_id for row in rows[1:]]
    assert sorted(await booked(rig)) == [(row.event_id, 2) for row in rows[1:]]


async def test_of_a_server_that_went_back_only_what_it_lost_counts_again(rig: FlowRig) -> None:
    key = await rig.user()
    kept = await rig.spend(key)
    saved = rig.redis.saved()
    lost = await rig.spend(key)
    rig.redis.go_back(saved)
    await rig.shards.open_all()
    await caught_up(rig)
    assert await booked(rig) == [(kept.event_id, 1), (kept.event_id, 2), (lost.event_id, 2)]


async def test_sent_again_twice_books_once(rig: FlowRig) -> None:
    row = await rig.spend(await rig.user())
    other = await raised_by_another(rig)
    await rig.shards.look(rig.store)
    await caught_up(rig)
    far = f"{rig.clock.now_ms() + 10**6}-0"
    other.noted(ADA, ShardState(2, far))  # so it takes the server for one that went back
    assert await other.open(ADA) == 3
    await rig.shards.look(rig.store)
    await caught_up(rig)
    assert [each.rid for each in rig.store.sent] == [row.event_id] * 2
    assert await booked(rig) == [(row.event_id, 2)]


async def test_what_was_sent_again_is_known_to_be_there(rig: FlowRig) -> None:
    """A server that loses it once more has gone back once more."""
    await rig.spend(await rig.user())
    await raised_by_another(rig)
    saved = rig.redis.saved()
    await rig.shards.look(rig.store)
    await caught_up(rig)
    rig.redis.go_back(saved)
    assert await rig.shards.open(ADA) == 3


# --- trouble on the way ------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["never arrives", "reply lost"])
async def test_trouble_of_the_store_is_outlasted(rig: FlowRig, trouble: Trouble) -> None:
    key = await rig.user()
    rows = [await rig.spend(key) for _ in range(3)]
    await raised_by_another(rig)
    for _ in range(4):
        rig.store.trouble("settle", trouble)
    await rig.shards.look(rig.store)
    await caught_up(rig)
    assert sorted(await booked(rig)) == [(row.event_id, 2) for row in rows]


async def test_a_ledger_that_is_away_is_outlasted(rig: FlowRig) -> None:
    row = await rig.spend(await rig.user())
    await raised_by_another(rig)
    rig.ledger.away = True
    await rig.shards.look(rig.store)
    catching_up = asyncio.ensure_future(caught_up(rig))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not catching_up.done()
    assert rig.store.sent == []
    rig.ledger.away = False
    await catching_up
    assert await booked(rig) == [(row.event_id, 2)]


async def test_a_shard_that_closes_again_is_waited_for(rig: FlowRig) -> None:
    row = await rig.spend(await rig.user())
    other = await raised_by_another(rig)
    await rig.lose_everything()
    looked = rig.store.asked.count("shard_state")
    rig.shards.noted(ADA, ShardState(2, "0-0"))  # an old reply: the shard is closed by now
    await until(lambda: rig.store.asked.count("shard_state") >= looked + 2)
    assert (await rig.store.epochs())[ADA] == 0  # and not opened at an epoch that was there before
    await other.open_all()
    await caught_up(rig)
    assert await booked(rig) == [(row.event_id, 3)]


async def test_one_that_is_rejected_does_not_hold_up_the_others(
    rig: FlowRig, caplog: pytest.LogCaptureFixture
) -> None:
    key = await rig.user()
    bad, good = await rig.spend(key), await rig.spend(key)
    await raised_by_another(rig)
    rig.store.trouble("settle", StoreRejected("settle: an argument is not of its kind"))
    with caplog.at_level(logging.ERROR, "gateway.shards"):
        await rig.shards.look(rig.store)
        await caught_up(rig)
    assert (good.event_id, 2) in await booked(rig)
    assert bad.event_id in caplog.text


# --- before anything else ----------------------------------------------------------------------


async def test_an_account_comes_back_only_after_what_was_sent_again(rig: FlowRig) -> None:
    row = await rig.spend(await rig.user())
    await raised_by_another(rig)
    await rig.shards.look(rig.store)
    for _ in range(2):
        rig.store.trouble("settle", "never arrives")
    rig.store.asked.clear()
    flight = asyncio.ensure_future(rig.hydrator.hydrate("ada", rig.period))
    await until(lambda: "hydrate_begin" in rig.store.asked)
    told = [name for name in rig.store.asked if name in ("settle", "hydrate_begin")]
    assert told == ["settle"] * 3 + ["hydrate_begin"]
    await rig.drain()
    await asyncio.wait_for(flight, 10)
    account = await rig.account()
    assert (account.settled_tokens, account.epoch) == (50, 2)
    assert await booked(rig) == [(row.event_id, 2)]


async def test_a_newer_epoch_replaces_the_sending_and_who_waits_for_it_goes_on(
    rig: FlowRig,
) -> None:
    row = await rig.spend(await rig.user())
    other = await raised_by_another(rig)
    rig.ledger.away = True
    await rig.shards.look(rig.store)
    waiting = asyncio.ensure_future(caught_up(rig))
    await asyncio.sleep(0)
    rig.ledger.away = False
    other.noted(ADA, ShardState(2, f"{rig.clock.now_ms() + 10**6}-0"))
    await other.open(ADA)
    await rig.shards.look(rig.store)
    await waiting
    assert await booked(rig) == [(row.event_id, 3)]


async def test_what_others_have_sent_again_and_the_ledger_booked_hides_nothing_of_ours(
    rig: FlowRig,
) -> None:
    row = await rig.spend(await rig.user())
    await raised_by_another(rig)
    # Another gateway was faster: its events came later than ours, and are booked by now.
    later = f"{int(row.stream_id.partition('-')[0]) + 1000}-0"
    rig.ledger.at[ADA] = replace(rig.ledger.at[ADA], stream_id=later)
    await rig.shards.look(rig.store)
    await caught_up(rig)
    assert await booked(rig) == [(row.event_id, 2)]
