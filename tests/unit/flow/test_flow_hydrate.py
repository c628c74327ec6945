"""An account comes back from the ledger once, complete, and never as zero."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gateway.core.event import LedgerRow
from gateway.flow import hydrate
from gateway.flow.hydrate import AT_ONCE_MAX, Hydrator
from gateway.flow.shards import Shards
from gateway.ports.ledger import LedgerUnavailable
from gateway.ports.quota_store import StoreUnavailable
from tests.fakes.answer import RecordedAnswer
from tests.fakes.chat_stream import completion
from tests.fakes.flow_rig import FlowRig, until
from tests.fakes.store import SHARDS
from tests.fakes.upstream import ScriptedAnswer


async def spend(rig: FlowRig, key: str) -> LedgerRow:
    """One call of 50 tokens; its row, which the ledger does not have yet."""
    counts = {"prompt_tokens": 20, "completion_tokens": 30}
    rig.will_answer(ScriptedAnswer([completion("Hi", counts)]))
    await rig.exchange.run(rig.call(key), RecordedAnswer())
    return (await rig.rows())[-1]


async def drain(rig: FlowRig, *rows: LedgerRow) -> None:
    await rig.ledger.book(rows, [])


async def forget(rig: FlowRig) -> None:
    """The account is gone from the store, and its shard's outbox is not."""
    for key in await rig.redis.client.keys("qg:*:a:*"):
        await rig.redis.client.delete(key)


def asked(rig: FlowRig, name: str) -> int:
    return rig.store.asked.count(name)


async def test_callers_at_the_same_time_share_one_flight(rig: FlowRig) -> None:
    await rig.user()
    flights = [rig.hydrator.hydrate("ada", rig.period) for _ in range(20)]
    await asyncio.gather(*flights)
    assert (asked(rig, "hydrate_begin"), asked(rig, "hydrate_finish")) == (1, 1)
    assert rig.metrics.of("hydrated") == ["finished"]


async def test_a_caller_that_gives_up_does_not_take_the_others_down(rig: FlowRig) -> None:
    row = await spend(rig, await rig.user())
    await forget(rig)
    first = asyncio.ensure_future(rig.hydrator.hydrate("ada", rig.period))
    second = asyncio.ensure_future(rig.hydrator.hydrate("ada", rig.period))
    await until(lambda: rig.ledger.sums_asked >= 2)
    first.cancel()
    await drain(rig, row)
    await asyncio.wait_for(second, 10)
    assert first.cancelled()
    assert (await rig.account()).settled_tokens == 50


async def test_nothing_is_in_force_before_the_drain_has_booked_what_was_settled(
    rig: FlowRig,
) -> None:
    row = await spend(rig, await rig.user())
    await forget(rig)
    looked = rig.ledger.sums_asked
    flight = asyncio.ensure_future(rig.hydrator.hydrate("ada", rig.period))
    await until(lambda: rig.ledger.sums_asked >= looked + 3)
    assert not flight.done()
    assert await rig.store.snapshot("ada") is None
    await drain(rig, row)
    await asyncio.wait_for(flight, 10)
    assert (await rig.account()).settled_tokens == 50


async def test_what_is_settled_in_between_counts_once(rig: FlowRig) -> None:
    key = await rig.user()
    hold = (await rig.admission.admit(rig.call(key))).hold
    row = await spend(rig, key)
    await forget(rig)
    flight = asyncio.ensure_future(rig.hydrator.hydrate("ada", rig.period))
    await until(lambda: asked(rig, "hydrate_begin") == 2)
    await rig.settlements.release(hold)
    await drain(rig, row, replace(row, event_id="again", stream_id=row.stream_id))
    await asyncio.wait_for(flight, 10)
    assert (await rig.account()).settled_tokens == 100


async def test_a_ledger_that_does_not_catch_up_is_waited_for_no_longer_than_the_bound(
    rig: FlowRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hydrate, "_WAIT_S", 0.02)
    row = await spend(rig, await rig.user())
    await forget(rig)
    looked = rig.ledger.sums_asked
    with pytest.raises(StoreUnavailable, match="caught up"):
        await rig.hydrator.hydrate("ada", rig.period)
    assert rig.ledger.sums_asked - looked == 3  # after 0, 5 and 15 ms
    assert rig.metrics.of("hydrated")[-1] == "timed_out"
    await drain(rig, row)
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
    await spend(rig, await rig.user())
    await rig.hydrator.hydrate("ada", rig.period)
    assert (await rig.account()).settled_tokens == 50
    assert rig.metrics.of("hydrated") == ["finished"]


async def test_of_two_gateways_one_finishes_and_the_sums_are_added_once(rig: FlowRig) -> None:
    row = await spend(rig, await rig.user())
    await forget(rig)
    shards = Shards(rig.store, rig.ledger, SHARDS)
    other = Hydrator(rig.store, rig.ledger, shards, rig.metrics)
    begun: list[str] = []

    async def note(where: str) -> None:
        begun.extend([where] if where == "after hydrate_begin" else [])

    rig.store.pause = note
    both = asyncio.gather(rig.hydrator.hydrate("ada", rig.period), other.hydrate("ada", rig.period))
    await until(lambda: len(begun) == 2)
    await drain(rig, row)
    await both
    assert (await rig.account()).settled_tokens == 50
    assert sorted(rig.metrics.of("hydrated")[-2:]) == ["finished", "joined"]


async def test_a_closed_shard_is_opened_on_the_way(rig: FlowRig) -> None:
    await rig.user()
    await rig.lose_everything()
    await rig.hydrator.hydrate("ada", rig.period)
    assert (await rig.account()).epoch == 2


async def test_no_more_accounts_come_back_at_once_than_the_ledger_can_bear(rig: FlowRig) -> None:
    people = [f"user-{number}" for number in range(AT_ONCE_MAX + 10)]
    for user_id in people:
        await rig.user(user_id)
    at_once, most, go_on = 0, 0, asyncio.Event()

    async def pause(where: str) -> None:
        nonlocal at_once, most
        if where == "before hydrate_begin":
            at_once += 1
            most = max(most, at_once)
            await go_on.wait()
        if where == "after hydrate_finish":
            at_once -= 1

    rig.store.pause = pause
    flights = asyncio.gather(*(rig.hydrator.hydrate(user, rig.period) for user in people))
    await until(lambda: at_once == AT_ONCE_MAX)
    go_on.set()
    await flights
    assert most == AT_ONCE_MAX
    assert asked(rig, "hydrate_finish") == len(people)
