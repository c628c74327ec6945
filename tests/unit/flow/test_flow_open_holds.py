"""A lease runs as long as its call does, and no longer than a stream may."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gateway.flow.open_holds import OpenHold, OpenHolds
from gateway.ports.quota_store import StoreRejected
from gateway.ports.tasks import spawn
from tests.fakes.flow_rig import FlowRig, flow_rig, until


async def opened(rig: FlowRig, key: str | None = None) -> OpenHold:
    call = rig.call(key or await rig.user())
    return rig.open_holds.add((await rig.admission.admit(call)).hold)


async def leases(rig: FlowRig) -> list[float]:
    found: list[float] = []
    for key in await rig.redis.client.keys("qg:*:l"):
        found += [score for _, score in await rig.redis.client.zrange(key, 0, -1, withscores=True)]
    return found


def beats(rig: FlowRig) -> int:
    return rig.store.asked.count("extend")


async def test_a_hold_younger_than_a_heartbeat_is_left_alone(rig: FlowRig) -> None:
    entry = await opened(rig)
    rig.clock.pass_s(9.999)
    await rig.open_holds.beat()
    assert beats(rig) == 0
    rig.clock.pass_s(0.001)
    await rig.open_holds.beat()
    assert beats(rig) == 1
    assert not entry.over


async def test_a_beat_lengthens_the_lease(rig: FlowRig) -> None:
    entry = await opened(rig)
    (before,) = await leases(rig)
    terms = replace(rig.terms, lease_ms=120_000)
    patient = OpenHolds(rig.store, rig.shards, rig.settlements, terms, rig.clock)
    patient.add(entry.hold)
    rig.clock.pass_s(10)
    await patient.beat()
    (after,) = await leases(rig)
    assert after >= before + 60_000


async def test_a_beat_that_is_rejected_stops_no_other(rig: FlowRig) -> None:
    key = await rig.user()
    for _ in range(2):
        await opened(rig, key)
    rig.clock.pass_s(10)
    rig.store.trouble("extend", StoreRejected("extend: an argument is not a whole amount"))
    await rig.open_holds.beat()
    assert beats(rig) == 2


async def test_an_ended_hold_gets_no_more_beats(rig: FlowRig) -> None:
    entry = await opened(rig)
    assert len(rig.open_holds) == 1
    rig.open_holds.remove(entry)
    rig.open_holds.remove(entry)
    rig.clock.pass_s(60)
    await rig.open_holds.beat()
    assert (beats(rig), len(rig.open_holds)) == (0, 0)


async def test_a_hold_that_somebody_else_ended_is_over(rig: FlowRig) -> None:
    entry = await opened(rig)
    await rig.expire()
    rig.clock.pass_s(10)
    await rig.open_holds.beat()
    assert entry.over


async def test_a_hold_that_ends_during_its_beat_is_not_called_over(rig: FlowRig) -> None:
    entry = await opened(rig)
    await rig.expire()

    async def end(where: str) -> None:
        rig.open_holds.remove(entry)

    rig.store.pause = end
    rig.clock.pass_s(10)
    await rig.open_holds.beat()
    assert (beats(rig), entry.over) == (1, False)


async def test_from_the_moment_its_end_is_sent_nothing_keeps_a_hold(rig: FlowRig) -> None:
    entry = await opened(rig)
    rig.store.trouble("settle", "never arrives")
    await rig.settlements.release(entry.hold)
    assert len(rig.open_holds) == 0


async def test_a_stream_may_run_so_long_and_no_longer(rig: FlowRig) -> None:
    entry = await opened(rig)
    rig.clock.pass_s(3600)
    await rig.open_holds.beat()
    assert (entry.over, beats(rig)) == (False, 1)
    rig.clock.pass_s(1)
    await rig.open_holds.beat()
    assert (entry.over, beats(rig)) == (True, 1)


async def test_a_store_that_is_away_ends_no_stream(rig: FlowRig) -> None:
    key = await rig.user()
    first, second = await opened(rig, key), await opened(rig, key)
    rig.store.away = True
    rig.clock.pass_s(10)
    await rig.open_holds.beat()
    assert beats(rig) == 2
    assert not first.over
    assert not second.over


async def test_the_heart_beats_on_after_the_store_was_away() -> None:
    async with flow_rig(heartbeat_ms=1) as rig:
        await opened(rig)
        rig.clock.pass_s(1)
        rig.store.away = True
        heart = spawn(rig.open_holds.beat_forever(), "heartbeat", awaited=True)
        await until(lambda: beats(rig) >= 2)
        rig.store.away = False
        await until(lambda: beats(rig) >= 4)
        heart.cancel()
        with pytest.raises(asyncio.CancelledError):
            await heart
