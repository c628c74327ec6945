"""While the store is away: who may go on, how far, and that all of it is booked once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gateway.core.event import LedgerRow
from gateway.core.hold import Ending
from gateway.core.refusal import Case, Refused
from gateway.core.usage import Usage
from gateway.flow import outage, settlements
from gateway.flow.admit import Admitted
from gateway.flow.outage import SEEN_S, Spending
from gateway.flow.terms import OutageTerms
from gateway.ports.quota_store import StoreNotAsked
from gateway.ports.upstream import UpstreamUnreachable
from tests.fakes.answer import RecordedAnswer
from tests.fakes.chat_stream import completion
from tests.fakes.flow_rig import COUNTS, FlowRig, flow_rig
from tests.fakes.upstream import ScriptedAnswer

TOKENS = 200
HELD_BY_FIRST = 50  # what the first call of a known user has used


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settlements, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(settlements, "_LONGEST_PAUSE_S", 0.004)


@pytest.fixture
async def rig() -> AsyncIterator[FlowRig]:
    async with flow_rig(outage=OutageTerms("bounded", TOKENS)) as opened:
        yield opened


@pytest.fixture
async def open_rig() -> AsyncIterator[FlowRig]:
    async with flow_rig(outage=OutageTerms("open", TOKENS)) as opened:
        yield opened


async def known(rig: FlowRig, used: int = 0) -> str:
    """The key of a user whom the store has said something of, and who then is settled."""
    key = await rig.user()
    if used:
        await rig.accounts.set_used("ada", used, "test", "tester")
    await rig.spend(key)
    return key


async def admitted(rig: FlowRig, key: str, **body: Any) -> Admitted:
    return await rig.admission.admit(rig.call(key, **body))


async def refused(rig: FlowRig, key: str, **body: Any) -> Case:
    with pytest.raises(Refused) as caught:
        await admitted(rig, key, **body)
    return caught.value.case


async def ended(rig: FlowRig, admission: Admitted, charged: int) -> None:
    usage = Usage(charged, 0, 0, 0)
    await rig.settlements.settle(admission.hold, Ending(usage, "measured", "done", 200))


def in_outage(rows: list[LedgerRow]) -> list[int]:
    return [row.charged_tokens for row in rows if row.event.outcome == "outage"]


async def back(rig: FlowRig) -> list[LedgerRow]:
    rig.store.away = False
    return await rig.rows()


async def test_a_known_user_goes_on_and_the_call_is_booked_once_the_store_is_back(
    rig: FlowRig,
) -> None:
    key = await known(rig)
    rig.store.away = True
    rig.will_answer(ScriptedAnswer([completion("Hi", COUNTS)]))
    answer, call = RecordedAnswer(), rig.call(key)
    await rig.exchange.run(call, answer)
    assert answer.head is not None
    assert (answer.head.decision, answer.head.charged_tokens) == ("outage", 50)
    assert answer.head.rid != call.rid
    assert answer.head.quota.used_tokens == HELD_BY_FIRST + 50
    assert rig.metrics.of("decided")[-1] == ("free", "chat", "outage", "ok")
    rows = await back(rig)
    assert in_outage(rows) == [50]
    assert rows[-1].event_id == answer.head.rid
    account = await rig.account()
    assert (account.settled_tokens, account.held_tokens) == (HELD_BY_FIRST + 50, 0)
    assert "late" in rig.metrics.of("hold_ended")
    assert len(rig.settlements.spending) == 0


async def test_what_is_spent_is_counted_as_held_and_then_as_used(rig: FlowRig) -> None:
    key = await known(rig)
    rig.store.away = True
    first = await admitted(rig, key)
    assert (first.hold.hold_tokens, first.lowered) == (first.hold.prompt_tokens + 100, False)
    second = await admitted(rig, key)
    assert second.lowered  # to what the first one leaves
    assert first.hold.hold_tokens + second.hold.hold_tokens == TOKENS
    assert await refused(rig, key) is Case.QUOTA_BACKEND_UNAVAILABLE
    await ended(rig, first, 60)
    third = await admitted(rig, key)
    assert 60 + second.hold.hold_tokens + third.hold.hold_tokens == TOKENS
    await ended(rig, second, 30)
    await ended(rig, third, 40)
    assert in_outage(await back(rig)) == [60, 30, 40]


async def test_a_call_that_cost_nothing_gives_back_all_and_leaves_no_row(rig: FlowRig) -> None:
    key = await known(rig)
    rig.store.away = True
    rig.will_answer(UpstreamUnreachable("gone"))
    with pytest.raises(Refused):
        await rig.exchange.run(rig.call(key), RecordedAnswer())
    assert rig.settlements.spending.taken("ada") == 0
    assert in_outage(await back(rig)) == []


async def test_a_store_that_comes_and_goes_renews_no_budget(rig: FlowRig) -> None:
    """It answers reserves again, but what was spent is not confirmed yet."""
    key = await known(rig)
    rig.store.away = True
    await ended(rig, await admitted(rig, key, max_tokens=400), TOKENS)
    rig.store.away = False
    for _ in range(3):
        rig.store.trouble("settle", "never arrives")
    rig.store.trouble("reserve", "never arrives")
    assert await refused(rig, key) is Case.QUOTA_BACKEND_UNAVAILABLE
    await rig.settled()
    rig.store.trouble("reserve", "never arrives")
    assert (await admitted(rig, key)).decision == "outage"


async def test_no_more_is_spent_than_was_left_when_it_was_last_seen(rig: FlowRig) -> None:
    key = await known(rig, used=1000 - HELD_BY_FIRST - 120)
    rig.store.away = True
    found = await admitted(rig, key, max_tokens=150)
    assert (found.hold.hold_tokens, found.lowered) == (120, True)
    assert await refused(rig, key) is Case.QUOTA_BACKEND_UNAVAILABLE


async def test_a_user_of_whom_nothing_was_heard_for_long_is_unknown(rig: FlowRig) -> None:
    key = await known(rig)
    rig.store.away = True
    rig.clock.pass_s(SEEN_S)
    await admitted(rig, key)
    rig.clock.pass_s(1)
    assert await refused(rig, key) is Case.QUOTA_BACKEND_UNAVAILABLE


async def test_of_the_next_period_nothing_is_known(rig: FlowRig) -> None:
    key = await known(rig)
    rig.store.away = True
    rig.clock.ms = rig.period.end_ms
    assert await refused(rig, key) is Case.QUOTA_BACKEND_UNAVAILABLE


async def test_a_user_whom_the_store_never_saw_is_refused(rig: FlowRig) -> None:
    key = await rig.user()
    rig.store.away = True
    assert await refused(rig, key) is Case.QUOTA_BACKEND_UNAVAILABLE


async def test_mode_closed_refuses_everybody() -> None:
    async with flow_rig(outage=OutageTerms("closed", TOKENS)) as rig:
        key = await known(rig)
        rig.store.away = True
        assert await refused(rig, key) is Case.QUOTA_BACKEND_UNAVAILABLE


async def test_mode_open_admits_everybody_and_books_it(open_rig: FlowRig) -> None:
    rig = open_rig
    key = await rig.user()
    rig.store.away = True
    for _ in range(5):
        found = await admitted(rig, key, max_tokens=400)
        assert (found.decision, found.hold.output_tokens) == ("outage", 400)
        assert found.quota.remaining_tokens == 1000
        await ended(rig, found, 300)
    assert in_outage(await back(rig)) == [300] * 5
    await rig.drain()
    assert await refused(rig, key) is Case.MONTH_USED_UP


# --- a user whose month is used up ---------------------------------------------------------------


@pytest.mark.parametrize("mode", ["bounded", "closed"])
async def test_a_user_who_was_refused_is_told_so_again(mode: Any) -> None:
    async with flow_rig(outage=OutageTerms(mode, TOKENS)) as rig:
        key = await rig.user()
        await rig.accounts.set_used("ada", 995, "test", "tester")
        assert await refused(rig, key) is Case.MONTH_USED_UP
        rig.store.away = True
        with pytest.raises(Refused) as caught:
            await admitted(rig, key)
        told = caught.value
        assert told.case is Case.MONTH_USED_UP
        assert told.quota is not None
        assert told.quota.view.used_tokens == 995
        left_s = (rig.period.end_ms - rig.clock.now_ms()) / 1000
        assert told.retry_after_s == pytest.approx(left_s, abs=1)
        rig.clock.ms = rig.period.end_ms
        assert await refused(rig, key) is Case.QUOTA_BACKEND_UNAVAILABLE


async def test_a_user_who_used_the_last_token_needs_no_refusal_to_be_known(rig: FlowRig) -> None:
    key = await known(rig, used=1000 - HELD_BY_FIRST - 100)
    found = await admitted(rig, key, max_tokens=90)
    await ended(rig, found, 100)
    await rig.settled()
    rig.store.away = True
    assert await refused(rig, key) is Case.MONTH_USED_UP


async def test_what_open_holds_make_room_for_is_not_used_up(rig: FlowRig) -> None:
    key = await known(rig, used=1000 - HELD_BY_FIRST - 120)
    await admitted(rig, key, max_tokens=110)
    rig.store.away = True
    assert await refused(rig, key) is Case.QUOTA_BACKEND_UNAVAILABLE


async def test_a_pack_or_a_tier_that_the_store_was_not_told_of_ends_the_refusal(
    rig: FlowRig,
) -> None:
    """He is not told to buy what he has bought; the ledger is asked for it once a second."""
    key = await rig.user()
    await rig.accounts.set_used("ada", 995, "test", "tester")
    await refused(rig, key)
    rig.store.away = True
    looked = rig.directory.asked
    for _ in range(5):
        assert await refused(rig, key) is Case.MONTH_USED_UP
    assert rig.directory.asked == looked + 1
    await rig.directory.set_tier("ada", "lite")
    assert await refused(rig, key) is Case.MONTH_USED_UP
    rig.clock.pass_s(outage.ASK_EVERY_S)
    assert await refused(rig, key) is Case.QUOTA_BACKEND_UNAVAILABLE
    rig.store.away = False
    assert (await admitted(rig, key)).decision == "admitted"


async def test_with_the_ledger_away_too_the_refusal_stands(rig: FlowRig) -> None:
    key = await rig.user()
    await rig.accounts.set_used("ada", 995, "test", "tester")
    await refused(rig, key)
    rig.store.away = rig.directory.away = True
    assert await refused(rig, key) is Case.MONTH_USED_UP


# --- what becomes of the reserve that had no answer ----------------------------------------------


async def test_a_reserve_that_comes_late_holds_nothing_and_books_nothing(rig: FlowRig) -> None:
    """It took effect, its reply was lost, and the call went out under a rid of its own."""
    key = await known(rig)
    rig.store.trouble("reserve", "reply lost")
    call = rig.call(key)
    found = await rig.admission.admit(call)
    await ended(rig, found, 70)
    account = await rig.account()
    assert (account.held_tokens, account.settled_tokens) == (0, HELD_BY_FIRST + 70)
    kinds = {each.rid: each.kind for each in rig.store.sent}
    assert (kinds[call.rid], kinds[found.hold.rid]) == ("release", "settle")


async def test_a_reserve_that_was_not_sent_needs_no_release(rig: FlowRig) -> None:
    key = await known(rig)
    sent = len(rig.store.sent)
    rig.store.trouble("reserve", StoreNotAsked("away"))
    assert (await admitted(rig, key)).decision == "outage"
    await rig.settled()
    assert len(rig.store.sent) == sent


@pytest.mark.parametrize("trouble", ["never arrives", "reply lost"])
async def test_a_settlement_that_is_repeated_is_booked_once(rig: FlowRig, trouble: Any) -> None:
    key = await known(rig)
    rig.store.trouble("reserve", StoreNotAsked("away"))
    found = await admitted(rig, key)
    rig.store.trouble("settle", trouble)
    await ended(rig, found, 70)
    assert in_outage(await rig.rows()) == [70]
    assert (await rig.account()).settled_tokens == HELD_BY_FIRST + 70


async def test_no_heartbeat_asks_for_what_is_not_held(rig: FlowRig) -> None:
    """The store would say that it has ended, and the stream would be cut."""
    key = await known(rig)
    rig.store.trouble("reserve", StoreNotAsked("away"))
    entry = rig.open_holds.add((await admitted(rig, key)).hold)
    rig.clock.pass_s(rig.terms.heartbeat_ms / 1000)
    await rig.open_holds.beat()
    assert "extend" not in rig.store.asked
    assert not entry.over


# --- the reckoning -------------------------------------------------------------------------------


def test_spending_forgets_what_is_booked_and_what_cost_nothing() -> None:
    spending = Spending()
    ends: list[Callable[[str], None]] = [spending.booked, lambda rid: spending.ended(rid, 0)]
    for end in ends:
        assert spending.take("ada", "a", 100)
        assert spending.take("ada", "b", 50)
        spending.ended("a", 30)
        assert spending.taken("ada") == 80
        end("a")
        end("a")
        assert (spending.taken("ada"), len(spending)) == (50, 1)
        end("b")
        assert (spending.taken("ada"), len(spending)) == (0, 0)
        assert not spending._taken


def test_spending_takes_so_many_calls_and_no_more() -> None:
    spending = Spending(calls_max=2)
    assert [spending.take("ada", rid, 1) for rid in "abc"] == [True, True, False]
    spending.booked("a")
    assert spending.take("eve", "c", 1)


def test_what_cost_more_than_it_might_counts_as_it_cost() -> None:
    spending = Spending()
    spending.take("ada", "a", 10)
    spending.ended("a", 500)
    assert spending.taken("ada") == 500
    spending.ended("unknown", 5)
    assert spending.taken("ada") == 500
