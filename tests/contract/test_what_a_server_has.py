"""What a server of Redis is asked before calls go there: is this event there, are these holds."""

from __future__ import annotations

import pytest

from gateway.adapters.redis_store.keys import shard_keys
from gateway.core.quota.settle import SettleCode
from tests.contract.quota_samples import PAYER, SHARD, ask, reserve_lapsed, rid_of, settlement
from tests.contract.test_quota_store import Stand, empty, real_url, stand

__all__ = ["empty", "real_url", "stand"]
OUTBOX = shard_keys(SHARD).outbox


async def settled(stand: Stand, number: int) -> str:
    """The event of a call."""
    await stand.store.reserve(ask(number))
    reply = await (await stand.store.settle(settlement(number)))
    assert reply.code is SettleCode.SETTLED
    return reply.stream_id


@pytest.mark.parametrize("is_booked", [False, True])
async def test_an_event_is_there_until_the_server_loses_it(stand: Stand, is_booked: bool) -> None:
    first, lost, last = [await settled(stand, number) for number in (1, 2, 3)]
    for stream_id in (first, lost, last):
        assert await stand.store.has_event(SHARD, stream_id, is_booked)
    ms, number = last.split("-")
    assert not await stand.store.has_event(SHARD, f"{ms}-{int(number) + 1}", is_booked)
    assert not await stand.store.has_event(SHARD, "1-1", is_booked)  # nothing was ever trimmed
    assert not await stand.store.has_event(1 - SHARD, first, is_booked)


async def test_only_what_is_booked_may_have_been_trimmed(stand: Stand) -> None:
    first, second, last = [await settled(stand, number) for number in (1, 2, 3)]
    await stand.client.xtrim(OUTBOX, minid=last, approximate=False)
    for stream_id in (first, second):
        assert await stand.store.has_event(SHARD, stream_id, True)
        assert not await stand.store.has_event(SHARD, stream_id, False)
    await stand.client.xtrim(OUTBOX, maxlen=0, approximate=False)
    assert await stand.store.has_event(SHARD, last, True)
    assert not await stand.store.has_event(SHARD, last, False)


async def test_what_an_epoch_began_past_was_there_and_what_came_after_it_was_not(
    empty: Stand,
) -> None:
    await empty.store.open_shard(SHARD, 2, f"{2**50}-3", 0, ())
    assert await empty.store.has_event(SHARD, f"{2**50}-3", True)
    assert await empty.store.has_event(SHARD, f"{2**49}-0", True)
    await empty.client.xadd(OUTBOX, {"e": "{}", "b": "-"}, id=f"{2**50}-9")
    assert not await empty.store.has_event(SHARD, f"{2**50}-4", True)


async def test_a_hold_is_known_while_it_is_open_and_when_it_has_expired(stand: Stand) -> None:
    await reserve_lapsed(stand.store, ask(1))
    await stand.store.reserve(ask(2))
    calls = [(PAYER, rid_of(number)) for number in (1, 2, 3)]
    assert await stand.store.known(calls) == [True, True, False]
    assert await stand.store.known([]) == []
    lapsed = await stand.lapsed()
    ended = await stand.store.expire(lapsed, settlement(1, kind="expire"))
    assert ended.code is SettleCode.SETTLED
    await stand.end(2)
    assert await stand.store.known(calls) == [True, False, False]
