"""A settlement is sent until it is confirmed, always under the same rid, and charged once."""

from __future__ import annotations

import asyncio
import logging

import pytest

from gateway.core.answer import Usage
from gateway.core.hold import Ending, Hold
from gateway.flow import settlements
from gateway.ports.quota_store import StoreRejected
from tests.fakes.flow_rig import FlowRig, until

ENDING = Ending(Usage(20, 0, 30, 0), "measured", "done", 200)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settlements, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(settlements, "_LONGEST_PAUSE_S", 0.004)


async def held(rig: FlowRig) -> Hold:
    return (await rig.admission.admit(rig.call(await rig.user()))).hold


async def test_a_settlement_says_at_once_what_it_charged(rig: FlowRig) -> None:
    hold = await held(rig)
    assert await rig.settlements.settle(hold, ENDING) == 50
    assert rig.settlements.unconfirmed == 1
    await rig.settled()
    assert rig.settlements.unconfirmed == 0
    assert rig.metrics.of("hold_ended") == ["settled"]


async def test_while_the_store_is_away_the_same_rid_is_sent_until_it_is_confirmed(
    rig: FlowRig,
) -> None:
    hold = await held(rig)
    rig.store.away = True
    before = rig.store.asked.count("settle")
    assert await rig.settlements.settle(hold, ENDING) == 50
    await until(lambda: rig.store.asked.count("settle") >= before + 4)
    assert rig.settlements.unconfirmed == 1
    rig.store.away = False
    await rig.settled()
    assert {each.rid for each in rig.store.sent} == {hold.rid}
    (row,) = await rig.rows()
    assert (row.event_id, row.charged_tokens) == (hold.rid, 50)


@pytest.mark.parametrize("lost", [1, 2, 5])
async def test_a_settlement_whose_replies_are_lost_is_charged_once(rig: FlowRig, lost: int) -> None:
    hold = await held(rig)
    for _ in range(lost):
        rig.store.trouble("settle", "reply lost")
    await rig.settlements.settle(hold, ENDING)
    await rig.settled()
    assert len(rig.store.sent) == lost + 1
    assert len({each.event_json for each in rig.store.sent}) == 1
    assert len(await rig.rows()) == 1
    assert (await rig.account()).settled_tokens == 50
    assert rig.metrics.of("hold_ended") == ["nothing_open"]


async def test_a_closed_shard_is_opened_and_the_settlement_booked_late(rig: FlowRig) -> None:
    hold = await held(rig)
    await rig.lose_everything()
    await rig.settlements.settle(hold, ENDING)
    await rig.settled()
    (row,) = await rig.rows()
    assert (row.event_id, row.charged_tokens, row.epoch) == (hold.rid, 50, 2)
    assert rig.metrics.of("hold_ended") == ["late"]


async def test_a_shard_that_cannot_be_opened_yet_is_tried_again(rig: FlowRig) -> None:
    hold = await held(rig)
    await rig.lose_everything()
    rig.ledger.away = True
    asked = rig.store.asked.count("settle")
    await rig.settlements.settle(hold, ENDING)
    await until(lambda: rig.store.asked.count("settle") >= asked + 3)
    assert rig.settlements.unconfirmed == 1
    rig.ledger.away = False
    assert (await rig.rows())[0].charged_tokens == 50


async def test_a_rejected_settlement_is_logged_and_given_up(
    rig: FlowRig, caplog: pytest.LogCaptureFixture
) -> None:
    hold = await held(rig)
    rig.store.trouble("settle", StoreRejected("settle: an argument is not of its kind"))
    asked = rig.store.asked.count("settle")
    with caplog.at_level(logging.ERROR, "gateway.settlements"):
        await rig.settlements.settle(hold, ENDING)
        await rig.settled()
    assert rig.store.asked.count("settle") == asked + 1
    assert hold.rid in caplog.text
    assert "not of its kind" in caplog.text
    assert rig.metrics.of("hold_ended") == ["rejected"]


async def test_a_release_frees_the_hold_and_leaves_no_row(rig: FlowRig) -> None:
    hold = await held(rig)
    await rig.settlements.release(hold)
    assert await rig.rows() == []
    account = await rig.account()
    assert (account.held_tokens, account.open_holds, account.settled_tokens) == (0, 0, 0)
    assert rig.metrics.of("hold_ended") == ["released"]
    assert rig.metrics.of("charged") == []


async def test_confirmed_waits_for_every_settlement_under_way(rig: FlowRig) -> None:
    key = await rig.user()
    holds = [(await rig.admission.admit(rig.call(key))).hold for _ in range(3)]
    rig.store.away = True
    for hold in holds:
        await rig.settlements.settle(hold, ENDING)
    waiting = asyncio.ensure_future(rig.settlements.confirmed())
    asked = rig.store.asked.count("settle")
    await until(lambda: rig.store.asked.count("settle") >= asked + 6)
    assert not waiting.done()
    assert rig.settlements.unconfirmed == 3
    rig.store.away = False
    await asyncio.wait_for(waiting, 10)
    assert (await rig.account()).settled_tokens == 150


async def test_confirmed_returns_at_once_when_nothing_is_under_way(rig: FlowRig) -> None:
    await asyncio.wait_for(rig.settlements.confirmed(), 1)


async def test_the_pause_between_attempts_grows_and_stops_growing(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        if seconds:
            pauses.append(seconds)
        await sleep(0)

    hold = await held(rig)
    monkeypatch.setattr(asyncio, "sleep", noted)
    rig.store.away = True
    await rig.settlements.settle(hold, ENDING)
    await until(lambda: len(pauses) >= 5)
    rig.store.away = False
    await rig.settled()
    assert pauses[:5] == [0.001, 0.002, 0.004, 0.004, 0.004]
