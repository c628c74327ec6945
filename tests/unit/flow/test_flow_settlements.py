"""A settlement is sent until it is confirmed, always under the same rid, and charged once."""

from __future__ import annotations

import asyncio
import logging

import pytest

from gateway.core.event import decode_tail
from gateway.core.hold import Ending, Hold
from gateway.core.identity import shard_of
from gateway.core.quota.settle import Settlement, SettleReply
from gateway.core.refusal import Refused
from gateway.core.usage import Usage
from gateway.flow import settlements
from gateway.ports.quota_store import StoreRejected
from tests.fakes.flow_rig import FlowRig, until
from tests.fakes.store import SHARDS

ADA = shard_of("ada", SHARDS)
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


async def test_a_settlement_that_is_confirmed_at_once_needs_no_task_of_its_own(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = await held(rig)
    monkeypatch.setattr(settlements, "spawn", None)
    await rig.settlements.settle(hold, ENDING)
    await rig.settlements.confirmed()
    assert rig.metrics.of("hold_ended") == ["settled"]


@pytest.mark.parametrize("replies_lost", [0, 1])
async def test_a_hold_that_redis_lost_without_an_event_is_charged_all_the_same(
    rig: FlowRig, replies_lost: int
) -> None:
    """It came back as it was a moment before. No event is missing, so nobody raises an epoch."""
    key = await rig.user()
    await rig.spend(key)
    saved = rig.redis.saved()
    hold = (await rig.admission.admit(rig.call(key))).hold
    rig.redis.go_back(saved)
    rig.store.trouble("settle", "")
    for _ in range(replies_lost):  # to what tells of the loss
        rig.store.trouble("settle", "reply lost")
    await rig.settlements.settle(hold, ENDING)
    account = await rig.account()
    assert (account.settled_tokens, account.held_tokens) == (100, 0)
    assert [row.charged_tokens for row in await rig.rows()] == [50, 50]
    ended = "nothing_open" if replies_lost else "late"
    assert rig.metrics.of("hold_ended") == ["settled", ended]


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

    async def noted(pause_s: float) -> bool:
        pauses.append(pause_s)
        await asyncio.sleep(0)
        return False

    hold = await held(rig)
    monkeypatch.setattr(rig.settlements.pauses, "rest", noted)
    rig.store.away = True
    await rig.settlements.settle(hold, ENDING)
    await until(lambda: len(pauses) >= 5)
    rig.store.away = False
    await rig.settled()
    assert pauses[:5] == [0.001, 0.002, 0.004, 0.004, 0.004]


# --- what it carries ---------------------------------------------------------------------------


async def test_a_settlement_carries_the_terms_under_which_its_hold_was_made(rig: FlowRig) -> None:
    hold = await held(rig)
    await rig.accounts.set_tier("ada", "lite")
    await rig.settlements.settle(hold, ENDING)
    (sent,) = rig.store.sent
    assert (sent.tier, sent.member, sent.limit_tokens) == ("free", None, 1000)
    assert sent.thresholds_percent == (80, 95, 100)
    assert (sent.epoch, sent.period_start_ms) == (1, rig.period.start_ms)
    assert (sent.charged_tokens, sent.cost_nano_gbp) == (50, 20 * 2 + 30 * 4)
    assert sent.tier_period_start_ms is None
    assert decode_tail(rig.store.asks[-1].tail).limit_tokens == 1000


async def test_a_member_s_settlement_is_charged_to_the_team_and_counted_for_both(
    rig: FlowRig,
) -> None:
    await rig.user("team", "lite")
    hold = (await rig.admission.admit(rig.call(await rig.member("ben", "team")))).hold
    await rig.settlements.settle(hold, ENDING)
    (sent,) = rig.store.sent
    assert (sent.payer, sent.member, sent.limit_tokens) == ("team", "ben", 10_000)
    team, member = await rig.account("team"), await rig.store.snapshot("team", "ben")
    assert member is not None
    assert (team.settled_tokens, member.settled_tokens) == (50, 50)
    assert (team.open_holds, member.open_holds) == (0, 0)
    assert (await rig.rows("team"))[0].member == "ben"


async def test_a_charge_that_crosses_thresholds_books_the_highest_and_only_once(
    rig: FlowRig,
) -> None:
    key = await rig.user()
    await rig.accounts.set_used("ada", 790, "test", "tester")
    for used in ((5, 5), (5, 5), (100, 60)):
        hold = (await rig.admission.admit(rig.call(key, max_tokens=20))).hold
        usage = Usage(used[0], 0, used[1], 0)
        await rig.settlements.settle(hold, Ending(usage, "measured", "done", 200))
        await rig.settled()
    assert [row.crossed_percent for row in await rig.rows()] == [80, 0, 95]


# --- what is kept ------------------------------------------------------------------------------


async def test_a_confirmed_settlement_is_kept_with_its_event_s_id(rig: FlowRig) -> None:
    hold = await held(rig)
    await rig.settlements.settle(hold, ENDING)
    (row,) = await rig.rows()
    assert list(rig.recent.lost(ADA, 2, "0-0")) == rig.store.sent
    assert list(rig.recent.lost(ADA, 2, row.stream_id)) == []
    assert list(rig.recent.lost(1 - ADA, 2, "0-0")) == []


@pytest.mark.parametrize("kind", ["released", "unconfirmed"])
async def test_what_has_no_event_of_its_own_is_not_kept(rig: FlowRig, kind: str) -> None:
    hold = await held(rig)
    if kind == "released":
        await rig.settlements.release(hold)
        await rig.settled()
    else:
        rig.store.away = True
        await rig.settlements.settle(hold, ENDING)
    assert list(rig.recent.lost(ADA, 2, "0-0")) == []


async def test_what_was_confirmed_by_its_repetition_is_kept_wherever_its_event_is(
    rig: FlowRig,
) -> None:
    hold = await held(rig)
    rig.store.trouble("settle", "reply lost")
    await rig.settlements.settle(hold, ENDING)
    await rig.settled()
    assert [each.rid for each in rig.recent.lost(ADA, 2, "0-0")] == [hold.rid]


async def test_a_release_whose_hold_has_expired_takes_the_charge_back(rig: FlowRig) -> None:
    key = await rig.user()
    hold = (await rig.admission.admit(rig.call(key, stream=True))).hold
    await rig.expire()
    assert (await rig.account()).settled_tokens == hold.hold_tokens
    await rig.settlements.release(hold)
    expired, correction = await rig.rows()
    assert (correction.kind, correction.corrects) == ("correction", hold.rid)
    assert expired.charged_tokens + correction.charged_tokens == 0
    assert expired.cost_nano_gbp + correction.cost_nano_gbp == 0
    assert (await rig.account()).settled_tokens == 0
    assert rig.metrics.of("hold_ended") == ["corrected"]


async def test_a_reserve_whose_reply_was_lost_costs_nothing_even_if_it_expires_first(
    rig: FlowRig,
) -> None:
    key = await rig.user()
    await rig.admission.admit(rig.call(key))
    rig.store.trouble("reserve", "reply lost")
    for _ in range(10_000):  # for as long as the sweeper takes
        rig.store.trouble("settle", "never arrives")
    call = rig.call(key, stream=True)
    with pytest.raises(Refused):
        await rig.admission.admit(call)
    await rig.expire()
    rig.store.troubles.clear()
    rows = [row for row in await rig.rows() if call.rid in (row.event_id, row.corrects)]
    assert sum(row.charged_tokens for row in rows) == 0
    assert {row.period_ms for row in rows} == {rig.period.start_ms}
    assert (await rig.account()).settled_tokens == 0


# --- cancelled ---------------------------------------------------------------------------------


async def test_a_call_that_is_cancelled_as_its_settlement_leaves_still_settles(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold, sends, sending = await held(rig), rig.store.settle, asyncio.Event()

    async def stuck(settlement: Settlement) -> asyncio.Future[SettleReply]:
        sending.set()
        await asyncio.Event().wait()
        return await sends(settlement)

    monkeypatch.setattr(rig.store, "settle", stuck)
    settling = asyncio.ensure_future(rig.settlements.settle(hold, ENDING))
    await asyncio.wait_for(sending.wait(), 10)
    monkeypatch.setattr(rig.store, "settle", sends)
    settling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await settling
    assert (await rig.rows())[0].charged_tokens == 50
    assert (await rig.account()).open_holds == 0
