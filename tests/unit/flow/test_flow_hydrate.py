"""An account comes back from the ledger once, complete, and never as zero."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.core.hold import Ending
from gateway.core.quota.entitle import LedgerSums
from gateway.core.refusal import Case, Refused
from gateway.core.usage import Usage
from gateway.flow import hydrate
from gateway.flow.accounts import project
from gateway.flow.hydrate import AT_ONCE_MAX, Hydrator
from gateway.flow.recent import RecentSettlements
from gateway.flow.shards import Shards
from gateway.ports.directory import Adjustment
from gateway.ports.ledger import Cursor, LedgerUnavailable
from gateway.ports.quota_store import StoreUnavailable
from tests.fakes.flow_rig import FlowRig, until
from tests.fakes.store import SHARDS


def asked(rig: FlowRig, name: str) -> int:
    return rig.store.asked.count(name)


async def test_callers_at_the_same_time_share_one_flight(rig: FlowRig) -> None:
    await rig.user()
    flights = [rig.hydrator.hydrate("ada", rig.period) for _ in range(20)]
    await asyncio.gather(*flights)
    assert (asked(rig, "hydrate_begin"), asked(rig, "hydrate_finish")) == (1, 1)
    assert rig.metrics.of("hydrated") == ["finished"]


async def test_a_caller_that_gives_up_does_not_take_the_others_down(rig: FlowRig) -> None:
    await rig.spend(await rig.user())
    await rig.lose_account()
    looked = rig.ledger.cursors_asked
    first = asyncio.ensure_future(rig.hydrator.hydrate("ada", rig.period))
    second = asyncio.ensure_future(rig.hydrator.hydrate("ada", rig.period))
    await until(lambda: rig.ledger.cursors_asked >= looked + 2)
    first.cancel()
    await rig.drain()
    await asyncio.wait_for(second, 10)
    assert first.cancelled()
    assert (await rig.account()).settled_tokens == 50


async def test_nothing_is_in_force_before_the_drain_has_booked_what_was_settled(
    rig: FlowRig,
) -> None:
    await rig.spend(await rig.user())
    await rig.lose_account()
    looked = rig.ledger.cursors_asked
    flight = asyncio.ensure_future(rig.hydrator.hydrate("ada", rig.period))
    await until(lambda: rig.ledger.cursors_asked >= looked + 3)
    assert not flight.done()
    assert await rig.store.snapshot("ada") is None
    await rig.drain()
    await asyncio.wait_for(flight, 10)
    assert (await rig.account()).settled_tokens == 50


async def test_what_is_settled_in_between_counts_once(rig: FlowRig) -> None:
    key = await rig.user()
    hold = (await rig.admission.admit(rig.call(key))).hold
    await rig.spend(key)
    await rig.lose_account()
    flight = asyncio.ensure_future(rig.hydrator.hydrate("ada", rig.period))
    await until(lambda: asked(rig, "hydrate_begin") == 2)
    looked = rig.ledger.cursors_asked
    await until(lambda: rig.ledger.cursors_asked > looked)  # the hydration has begun by now
    await rig.settlements.settle(hold, Ending(Usage(3, 0, 4, 0), "measured", "done", 200))
    await rig.drain()  # both: the ledger's sums must leave the second out
    await asyncio.wait_for(flight, 10)
    assert (await rig.account()).settled_tokens == 57
    assert rig.ledger.sums_asked == 2


async def test_a_ledger_that_does_not_catch_up_is_waited_for_no_longer_than_the_bound(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hydrate, "_WAIT_S", 0.02)
    await rig.spend(await rig.user())
    await rig.lose_account()
    looked = rig.ledger.cursors_asked
    with pytest.raises(StoreUnavailable, match="caught up"):
        await rig.hydrator.hydrate("ada", rig.period)
    assert rig.ledger.cursors_asked - looked == 3  # after 0, 5 and 15 ms
    assert rig.metrics.of("hydrated")[-1] == "timed_out"
    await rig.drain()
    await rig.hydrator.hydrate("ada", rig.period)
    assert (await rig.account()).settled_tokens == 50


async def test_a_ledger_that_is_away_is_said_to_every_caller_and_asked_again_later(
    rig: FlowRig,
) -> None:
    await rig.user()
    rig.ledger.away = True
    flights = [rig.hydrator.hydrate("ada", rig.period) for _ in range(3)]
    found = await asyncio.gather(*flights, return_exceptions=True)
    assert [type(error) for error in found] == [LedgerUnavailable] * 3
    rig.ledger.away = False
    await rig.hydrator.hydrate("ada", rig.period)
    assert (await rig.account()).settled_tokens == 0


async def test_an_account_in_force_is_left_alone(rig: FlowRig) -> None:
    await rig.spend(await rig.user())
    await rig.hydrator.hydrate("ada", rig.period)
    assert (await rig.account()).settled_tokens == 50
    assert rig.metrics.of("hydrated") == ["finished"]


async def test_of_two_gateways_one_finishes_and_the_sums_are_added_once(rig: FlowRig) -> None:
    await rig.spend(await rig.user())
    await rig.lose_account()
    shards = Shards(rig.store, rig.ledger, SHARDS, RecentSettlements())
    other = Hydrator(rig.store, rig.ledger, shards, rig.metrics)
    begun: list[str] = []

    async def note(where: str) -> None:
        begun.extend([where] if where == "after hydrate_begin" else [])

    rig.store.pause = note
    both = asyncio.gather(rig.hydrator.hydrate("ada", rig.period), other.hydrate("ada", rig.period))
    await until(lambda: len(begun) == 2)
    await rig.drain()
    await both
    assert (await rig.account()).settled_tokens == 50
    assert sorted(rig.metrics.of("hydrated")[-2:]) == ["finished", "joined"]


async def test_a_closed_shard_is_opened_on_the_way(rig: FlowRig) -> None:
    await rig.user()
    await rig.lose_everything()
    await rig.hydrator.hydrate("ada", rig.period)
    assert (await rig.account()).epoch == 2


async def test_no_more_accounts_come_back_at_once_than_the_ledger_can_bear(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = await crowd(rig, AT_ONCE_MAX + 10)
    at_once, most, go_on = 0, 0, asyncio.Event()
    sums = rig.ledger.sums

    async def slow(*asked: Any) -> LedgerSums | None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await go_on.wait()
        at_once -= 1
        return await sums(*asked)

    monkeypatch.setattr(rig.ledger, "sums", slow)
    flights = asyncio.gather(*(rig.hydrator.hydrate(user, rig.period) for user in people))
    await until(lambda: at_once == AT_ONCE_MAX)
    await until(lambda: asked(rig, "hydrate_begin") == len(people))
    go_on.set()
    await flights
    assert most == AT_ONCE_MAX
    assert asked(rig, "hydrate_finish") == len(people)


async def crowd(rig: FlowRig, count: int) -> list[str]:
    people = [f"user-{number}" for number in range(count)]
    for user_id in people:
        await rig.user(user_id)
    return people


async def test_more_than_may_wait_are_told_to_come_again_and_those_who_wait_come_back(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hydrate, "WAITING_MAX", 3)
    people, go_on = await crowd(rig, 5), asyncio.Event()

    async def pause(where: str) -> None:
        await go_on.wait()

    rig.store.pause = pause
    flights = [asyncio.ensure_future(rig.hydrator.hydrate(u, rig.period)) for u in people[:3]]
    await until(lambda: asked(rig, "hydrate_begin") == 3)
    for user in people[3:]:
        with pytest.raises(LedgerUnavailable, match="too many accounts wait"):
            await rig.hydrator.hydrate(user, rig.period)
    joined = asyncio.ensure_future(rig.hydrator.hydrate(people[0], rig.period))  # no more of them
    go_on.set()
    await asyncio.gather(*flights, joined)
    await rig.hydrator.hydrate(people[3], rig.period)
    assert rig.metrics.of("hydrated") == ["refused"] * 2 + ["finished"] * 4


async def test_who_gets_no_turn_in_time_is_told_to_come_again(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hydrate, "_TURN_WAIT_S", 0.02)
    people, go_on, sums = await crowd(rig, AT_ONCE_MAX + 1), asyncio.Event(), rig.ledger.sums

    async def slow(*asked: Any) -> LedgerSums | None:
        await go_on.wait()
        return await sums(*asked)

    monkeypatch.setattr(rig.ledger, "sums", slow)
    flights = [asyncio.ensure_future(rig.hydrator.hydrate(u, rig.period)) for u in people]
    (late,), others = await asyncio.wait(flights, return_when=asyncio.FIRST_COMPLETED)
    with pytest.raises(LedgerUnavailable, match="came first"):
        await late
    go_on.set()
    await asyncio.gather(*others)
    assert sorted(rig.metrics.of("hydrated")) == ["finished"] * AT_ONCE_MAX + ["refused"]
    await rig.hydrator.hydrate(people[flights.index(late)], rig.period)


async def test_a_call_that_is_told_to_come_again_leaves_nothing_behind(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await rig.user()
    monkeypatch.setattr(hydrate, "WAITING_MAX", 0)
    with pytest.raises(Refused) as refused:
        await rig.admission.admit(rig.call(key))
    assert refused.value.case is Case.QUOTA_BACKEND_UNAVAILABLE
    assert refused.value.retry_after_s == 1
    assert rig.store.sent == []


# --- waiting for the drain ---------------------------------------------------------------------


async def test_however_many_accounts_wait_the_cursors_are_read_by_one_at_a_time(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = [f"user-{number}" for number in range(6)]
    keys = [await rig.user(user_id, "lite") for user_id in people]
    for user_id in people:
        await rig.hydrator.hydrate(user_id, rig.period)
    for key in keys:
        await rig.spend(key)
    await rig.lose_account()
    reading, go_on = 0, asyncio.Event()

    async def slow() -> dict[int, Cursor]:
        nonlocal reading
        reading += 1
        await go_on.wait()
        return dict(rig.ledger.at)

    sums_asked = rig.ledger.sums_asked
    monkeypatch.setattr(rig.ledger, "cursors", slow)
    flights = asyncio.gather(*(rig.hydrator.hydrate(user, rig.period) for user in people))
    await until(lambda: asked(rig, "hydrate_begin") == 2 * len(people))
    await until(lambda: reading)
    for _ in range(50):
        await asyncio.sleep(0)
    assert (reading, rig.ledger.sums_asked - sums_asked) == (1, 0)
    for user_id in people:
        await rig.drain(user_id)
    go_on.set()
    await asyncio.wait_for(flights, 10)
    assert rig.ledger.sums_asked - sums_asked == len(people)  # once an account
    assert [(await rig.account(user)).settled_tokens for user in people] == [50] * len(people)


async def test_who_waits_while_the_ledger_is_away_hears_of_it_and_the_next_reads_anew(
    rig: FlowRig,
) -> None:
    await rig.spend(await rig.user())
    await rig.lose_account()
    rig.ledger.away = True
    with pytest.raises(LedgerUnavailable):
        await rig.hydrator.hydrate("ada", rig.period)
    rig.ledger.away = False
    await rig.drain()
    await rig.hydrator.hydrate("ada", rig.period)
    assert (await rig.account()).settled_tokens == 50


# --- overtaken by a projection -----------------------------------------------------------------


async def gift(rig: FlowRig, number: int) -> None:
    """An operator's change that reaches the store while the account is being brought back."""
    event_id, start_ms = f"gift-{number}", rig.period.start_ms
    adjustment = Adjustment(event_id, "ada", start_ms, -100, "a gift", "ops")
    changed = await rig.directory.adjust(adjustment)
    await project(changed, rig.directory, rig.store, rig.clock)


def overtake(rig: FlowRig, times: int) -> None:
    """Before the sums are handed over, so often."""
    made = 0

    async def pause(where: str) -> None:
        nonlocal made
        if where == "before hydrate_finish" and made < times:
            made += 1
            await gift(rig, made)

    rig.store.pause = pause


@pytest.mark.parametrize("times", [1, 2])
async def test_sums_that_a_projection_overtook_are_read_again_and_the_projection_binds(
    rig: FlowRig, times: int
) -> None:
    await rig.user()
    overtake(rig, times)
    await rig.hydrator.hydrate("ada", rig.period)
    account = await rig.account()
    assert account.adjusted_tokens == -100 * times
    assert account.rev == rig.directory.people["ada"].rev
    assert (rig.ledger.sums_asked, asked(rig, "hydrate_finish")) == (times + 1, times + 1)
    assert rig.metrics.of("hydrated") == ["finished"]


async def test_an_entitlement_that_never_stands_still_is_given_up(rig: FlowRig) -> None:
    await rig.user()
    overtake(rig, 100)
    with pytest.raises(StoreUnavailable, match="faster than it can be read"):
        await rig.hydrator.hydrate("ada", rig.period)
    rig.store.pause = None
    await rig.hydrator.hydrate("ada", rig.period)
    assert (await rig.account()).adjusted_tokens == -300


# --- members of a team -------------------------------------------------------------------------


async def test_a_member_comes_back_beside_the_team_each_with_its_own_sums(rig: FlowRig) -> None:
    await rig.user("team", "lite")
    for number, name in enumerate(("ben", "cy")):
        key = await rig.member(name, "team")
        for _ in range(number + 1):
            await rig.spend(key)
            await rig.drain("team")
    await rig.lose_account()
    await rig.hydrator.hydrate("team", rig.period, "cy")
    team, member = await rig.account("team"), await rig.store.snapshot("team", "cy")
    assert member is not None
    assert (team.settled_tokens, member.settled_tokens) == (150, 100)
    assert await rig.store.snapshot("team", "ben") is None


async def test_members_at_the_same_time_share_the_team_s_flight(rig: FlowRig) -> None:
    await rig.user("team", "lite")
    for name in ("ben", "cy"):
        await rig.member(name, "team")
    flights = [rig.hydrator.hydrate("team", rig.period, name) for name in ("ben", "cy", "cy")]
    await asyncio.gather(*flights)
    assert asked(rig, "hydrate_begin") == asked(rig, "hydrate_finish") == 3
