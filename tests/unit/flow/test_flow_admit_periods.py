"""Clocks that disagree at a border, calendars that change, limits of every kind: a call is held in
the right period, or refused in plain words."""

from __future__ import annotations

import asyncio

import pytest

from gateway.core.period import Calendar, Period
from gateway.core.quota.reserve import ReserveCode, ReserveReply
from gateway.core.refusal import Case, Limit, Refused
from gateway.flow import shards
from gateway.flow.admit import Admitted
from tests.fakes.clock import DAY_MS
from tests.fakes.flow_rig import FlowRig, until
from tests.fakes.store import SHARDS

SKEWS_MS = [-40 * DAY_MS, 40 * DAY_MS]


def reply(rig: FlowRig, code: ReserveCode, wait_ms: int = 0) -> ReserveReply:
    """A refusal with figures of its own."""
    return ReserveReply(
        code=code,
        output_tokens=0,
        hold_tokens=0,
        hold_nano_gbp=0,
        used_tokens=987,
        held_tokens=12,
        limit_tokens=1000,
        pack_tokens=0,
        spent_nano_gbp=3,
        period_start_ms=rig.period.start_ms,
        period_end_ms=rig.period.end_ms,
        now_ms=rig.clock.now_ms(),
        wait_ms=wait_ms,
        rev=2,
        member_rev=2,
        epoch=1,
    )


async def admitted(rig: FlowRig, key: str) -> Admitted:
    return await rig.admission.admit(rig.call(key))


def reserves(rig: FlowRig) -> int:
    return rig.store.asked.count("reserve")


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "told", "words"),
    [
        (ReserveCode.MONTH, (Case.MONTH_USED_UP, "month", 8), "used 987 of your 1,000 tokens"),
        (ReserveCode.IN_FLIGHT, (Case.QUOTA_IN_FLIGHT, "month", 2), "but 12 are held by your"),
        (ReserveCode.MEMBER, (Case.MEMBER_USED_UP, "member", 8), "987 of the 1,000 tokens that"),
        (ReserveCode.BUDGET, (Case.BUDGET_SPENT, "budget", 8), "What is left of your budget"),
        (ReserveCode.CONCURRENT, (Case.CONCURRENT, "concurrent", 1), "may run at once"),
        (
            ReserveCode.REQUESTS,
            (Case.REQUESTS_A_MINUTE, "requests_a_minute", 8),
            "as many requests as you may within a minute. Try again in 8 s.",
        ),
        (
            ReserveCode.TOKENS,
            (Case.TOKENS_A_MINUTE, "tokens_a_minute", 8),
            "as many tokens as you may within a minute. Try again in 8 s.",
        ),
    ],
)
async def test_each_limit_that_binds_is_one_refusal_and_asked_about_once(
    rig: FlowRig, code: ReserveCode, told: tuple[Case, Limit, int], words: str
) -> None:
    key = await rig.user()
    rig.store.canned.append(reply(rig, code, wait_ms=7_001))
    with pytest.raises(Refused) as caught:
        await admitted(rig, key)
    refused = caught.value
    case, limit, retry_after_s = told
    assert (refused.case, refused.retry_after_s, refused.tier) == (case, retry_after_s, "free")
    assert words in refused.message
    assert refused.quota is not None
    assert (refused.quota.limit, refused.quota.view.used_tokens) == (limit, 987)
    assert reserves(rig) == 1
    assert rig.store.sent == []  # nothing is held, so nothing is released


async def test_a_call_larger_than_a_minute_s_tokens_is_not_told_to_wait(rig: FlowRig) -> None:
    key = await rig.user()
    rig.store.canned.append(reply(rig, ReserveCode.TOKENS, wait_ms=0))
    with pytest.raises(Refused, match="more than you may use within a minute") as caught:
        await admitted(rig, key)
    assert caught.value.case is Case.REQUEST_EXCEEDS_QUOTA
    assert caught.value.retry_after_s is None


async def test_the_cases_of_the_codes_are_all_there(rig: FlowRig) -> None:
    assert {code for code in ReserveCode if code <= ReserveCode.MONTH} == {
        *(ReserveCode.MONTH, ReserveCode.IN_FLIGHT, ReserveCode.MEMBER, ReserveCode.TIER),
        *(ReserveCode.BUDGET, ReserveCode.CONCURRENT, ReserveCode.REQUESTS, ReserveCode.TOKENS),
    }


# --- a shard that is quiet ---------------------------------------------------------------------


async def quieten(rig: FlowRig, quiet_ms: int = 60_000) -> None:
    """Another gateway raises the epochs, and is awaited itself."""
    for shard in range(SHARDS):
        epoch, _ = await rig.ledger.raise_epoch(shard, 1)
        await rig.store.open_shard(shard, epoch, "0-0", quiet_ms, ["another"])


async def test_a_quiet_shard_is_waited_for_until_nobody_is_awaited_any_more(rig: FlowRig) -> None:
    key = await rig.user(tier="lite")
    await admitted(rig, key)
    await quieten(rig)
    asked, looked = reserves(rig), rig.store.asked.count("shard_state")
    calls = [asyncio.ensure_future(admitted(rig, key)) for _ in range(20)]
    await until(lambda: rig.store.asked.count("shard_state") > looked + 4)
    assert reserves(rig) - asked == 20  # one looks for all, and nobody reserves meanwhile
    for shard in range(SHARDS):
        await rig.store.caught_up(shard, 2, "another")
    assert {(await call).hold.epoch for call in calls} == {2}


async def test_a_quiet_shard_is_waited_for_no_longer_than_it_may_last(rig: FlowRig) -> None:
    key = await rig.user()
    await quieten(rig, quiet_ms=30)
    assert (await admitted(rig, key)).hold.epoch == 2


async def test_a_quiet_shard_is_waited_for_no_longer_than_a_caller_waits(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_PATIENCE_MS", 20)
    key = await rig.user()
    await quieten(rig)
    with pytest.raises(Refused) as refused:
        await admitted(rig, key)
    assert refused.value.case is Case.QUOTA_BACKEND_UNAVAILABLE


async def test_a_shard_that_is_closed_waits_for_nothing(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await rig.user()
    rig.store.canned.append(reply(rig, ReserveCode.NOT_READY))
    slept: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", note)
    await admitted(rig, key)
    assert set(slept) <= {0}


# --- borders -----------------------------------------------------------------------------------


@pytest.mark.parametrize("skew_ms", SKEWS_MS)
async def test_an_account_comes_back_in_the_period_of_the_server_s_clock(
    rig: FlowRig, skew_ms: int
) -> None:
    key, period = await rig.user(), rig.period
    rig.clock.ms += skew_ms
    found = await admitted(rig, key)
    assert (found.hold.period_start_ms, found.quota.reset_at_ms) == (
        *(period.start_ms, period.end_ms),
    )


@pytest.mark.parametrize("skew_ms", SKEWS_MS)
async def test_a_clock_on_the_wrong_side_of_a_border_still_holds_in_the_right_period(
    rig: FlowRig, skew_ms: int
) -> None:
    key, period = await rig.user(), rig.period
    await rig.hydrator.hydrate("ada", period)
    rig.clock.ms += skew_ms
    hold = (await admitted(rig, key)).hold
    assert hold.period_start_ms == period.start_ms
    assert reserves(rig) == 2  # PERIOD, HELD


@pytest.mark.parametrize("skew_ms", SKEWS_MS)
@pytest.mark.parametrize("is_projected", [False, True])
async def test_a_wrong_clock_together_with_a_new_revision_is_admitted(
    rig: FlowRig, skew_ms: int, is_projected: bool
) -> None:
    key, period = await rig.user(), rig.period
    await admitted(rig, key)
    await rig.directory.set_tier("ada", "lite")
    rig.clock.ms += skew_ms
    if is_projected:
        await rig.accounts.set_tier("ada", "lite")
    else:
        await rig.identities.again(rig.identities.credential(key))
    found = await admitted(rig, key)
    assert (found.hold.period_start_ms, found.quota.tier) == (period.start_ms, "lite")
    assert (await rig.account()).rev == rig.directory.people["ada"].rev


async def test_a_border_that_passes_while_a_revision_is_read_is_found_as_well(
    rig: FlowRig,
) -> None:
    """PERIOD, STALE, and PERIOD once more, as where a border passes in between."""
    key = await rig.user()
    await admitted(rig, key)
    rig.store.canned += [
        reply(rig, code) for code in (ReserveCode.PERIOD, ReserveCode.STALE, ReserveCode.PERIOD)
    ]
    assert (await admitted(rig, key)).hold.period_start_ms == rig.period.start_ms


async def test_a_period_that_is_over_gives_way_to_the_next_with_nothing_used(
    rig: FlowRig,
) -> None:
    key, now = await rig.user(), rig.period
    rig.clock.ms -= 40 * DAY_MS
    await rig.hydrator.hydrate("ada", rig.period)
    await rig.accounts.set_used("ada", 990, "test", "tester")
    rig.clock.ms += 40 * DAY_MS
    found = await admitted(rig, key)
    assert (found.quota.used_tokens, found.quota.reset_at_ms) == (0, now.end_ms)


# --- calendars ---------------------------------------------------------------------------------


async def test_a_changed_calendar_counts_from_the_next_period(rig: FlowRig) -> None:
    key, before = await rig.user(), rig.period
    await admitted(rig, key)
    changed = await rig.accounts.set_calendar("ada", 15, "Europe/London")
    found = await admitted(rig, key)
    assert found.hold.period_start_ms == before.start_ms
    assert found.quota.reset_at_ms == before.end_ms
    rig.clock.ms = before.end_ms
    after = changed.calendar.period_at(rig.clock.now_ms())
    assert after.start_ms == before.end_ms
    assert after.end_ms == Calendar(15, "Europe/London").period_at(before.end_ms).end_ms
    ask = await next_ask(rig, key)
    assert (ask.start_ms, ask.end_ms) == (after.start_ms, after.end_ms)


async def next_ask(rig: FlowRig, key: str) -> Period:
    """The period for which a call asks, by the gateway's clock; what becomes of it is no matter."""
    asked = len(rig.store.asks)
    await admitted(rig, key)
    first = rig.store.asks[asked]
    return Period(first.period_start_ms, first.period_end_ms)


async def test_a_calendar_that_changed_meanwhile_is_learnt_by_the_next_call(
    rig: FlowRig,
) -> None:
    key = await rig.user()
    await admitted(rig, key)
    known = rig.directory.people["ada"]
    calendar = known.calendar.changed(7, "UTC", rig.clock.now_ms())
    await rig.directory.set_calendar("ada", calendar)  # and its projection is missing
    await rig.identities.again(rig.identities.credential(key))
    found = await admitted(rig, key)
    assert found.quota.reset_at_ms == rig.period.end_ms
    assert (await rig.account()).rev == known.rev + 1
