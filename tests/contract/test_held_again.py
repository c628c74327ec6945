"""What is open is held again through the store as its port promises it, in every order of arrival.

A settlement, the saying again and the sweeper meet at the server after it was emptied; whoever
comes first, the call is booked once, and nothing stays held. Real server and fake alike.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import pytest
from msgspec import structs

from gateway.adapters.redis_store.clients import open_client
from gateway.adapters.redis_store.leases import RedisLeases
from gateway.adapters.redis_store.streams import RedisStreams
from gateway.core.quota.reassert import OpenCall, ReassertCode
from gateway.core.quota.reserve import Limits, ReserveCode
from gateway.core.quota.settle import SettleCode
from gateway.ports.quota_store import QuotaStore, StoreRejected
from tests.contract.quota_samples import (
    ENDS_MS,
    PAYER,
    SHARD,
    SHARDS,
    STARTS_MS,
    ask,
    bring,
    ledger_sums,
    open_store,
    rid_of,
    settlement,
)
from tests.fakes.store import fake_stores

CALL = OpenCall(
    rid=rid_of(1), payer=PAYER, tier="free", epoch=1, period_start_ms=STARTS_MS, output_tokens=50,
    hold_tokens=150, hold_nano_gbp=7, progress_tokens=3, lease_ms=0, tail=b'{"note":"a b"}',
)  # fmt: skip


@dataclass(frozen=True)
class Emptied:
    """A store whose server was emptied after it held `CALL`: open in epoch 2, with no account."""

    store: QuotaStore
    leases: RedisLeases
    streams: RedisStreams
    client: Any

    async def say(self, **changes: Any) -> ReassertCode:
        return (await self.store.reassert(structs.replace(CALL, **changes))).code

    async def begin(self, member: str | None = None) -> None:
        assert await self.store.hydrate_begin(PAYER, member, STARTS_MS, ENDS_MS)

    async def finish(self, **sums: int) -> None:
        begun = await self.store.hydrate_begin(PAYER, None, STARTS_MS, ENDS_MS)
        assert begun is not None
        await self.store.hydrate_finish(PAYER, None, begun, ledger_sums(**sums))

    async def settle(self) -> SettleCode:
        return (await (await self.store.settle(settlement(charged_tokens=30)))).code

    async def sweep(self) -> None:
        for lapsed in await self.leases.lapsed(SHARD, 0, 10):
            await self.store.expire(lapsed, settlement(kind="expire", epoch=2, charged_tokens=20))

    async def held(self, member: str | None = None) -> tuple[int, int]:
        found = await self.store.snapshot(PAYER, member)
        assert found is not None
        return found.held_tokens, found.open_holds


async def _emptied(store: QuotaStore, client: Any) -> Emptied:
    await bring(store)
    assert (await store.reserve(ask())).code is ReserveCode.HELD
    await client.flushall()
    await store.open_shard(SHARD, 2, "0-0", 0, ())
    return Emptied(store, RedisLeases(client, SHARDS), RedisStreams(client, SHARDS), client)


@pytest.fixture(params=["real", "fake"])
def real_url(request: pytest.FixtureRequest) -> str | None:
    return str(request.getfixturevalue("redis_url")) if request.param == "real" else None


@pytest.fixture
async def emptied(real_url: str | None) -> AsyncIterator[Emptied]:
    if real_url is None:
        async with fake_stores() as fake:
            yield await _emptied(fake.store, fake.client)
        return
    client = open_client(real_url)
    async with open_store(real_url) as opened:
        yield await _emptied(opened.store, client)
    await client.aclose()


async def test_the_account_comes_first_and_then_it_is_held_once(emptied: Emptied) -> None:
    assert await emptied.say() is ReassertCode.HYDRATE
    await emptied.begin()
    assert await emptied.say() is ReassertCode.HELD
    assert await emptied.say() is ReassertCode.HELD_BEFORE
    await emptied.finish(settled_tokens=40)
    assert await emptied.held() == (150, 1)
    (lapsed,) = await emptied.leases.lapsed(SHARD, 0, 10)
    assert (lapsed.rid, lapsed.hold_tokens, lapsed.tail) == (CALL.rid, 150, CALL.tail)
    assert (lapsed.progress_tokens, lapsed.period_start_ms) == (3, STARTS_MS)


async def test_what_is_held_again_is_room_that_nobody_else_gets(emptied: Emptied) -> None:
    await emptied.begin()
    await emptied.say()
    await emptied.finish(settled_tokens=40)
    refused = await emptied.store.reserve(ask(2, limits=Limits(200)))
    assert (refused.code, refused.held_tokens) == (ReserveCode.IN_FLIGHT, 150)
    assert await emptied.settle() is SettleCode.SETTLED
    assert (await emptied.store.reserve(ask(2, limits=Limits(220)))).code is ReserveCode.HELD


async def test_of_a_member_the_team_s_and_the_member_s_account_hold_it(emptied: Emptied) -> None:
    await emptied.begin()
    assert await emptied.say(member="ann") is ReassertCode.HYDRATE
    await emptied.begin("ann")
    assert await emptied.say(member="ann", tier_period_start_ms=STARTS_MS) is ReassertCode.HELD
    await emptied.finish()
    begun = await emptied.store.hydrate_begin(PAYER, "ann", STARTS_MS, ENDS_MS)
    assert begun is not None
    await emptied.store.hydrate_finish(PAYER, "ann", begun, ledger_sums())
    assert await emptied.held() == await emptied.held("ann") == (150, 1)


async def test_in_its_own_epoch_it_has_ended_and_before_it_nothing_is_known(
    emptied: Emptied,
) -> None:
    await emptied.begin()
    assert await emptied.say(epoch=2) is ReassertCode.ENDED
    assert await emptied.say(epoch=3) is ReassertCode.NOT_READY


async def test_what_is_wrong_is_rejected(emptied: Emptied) -> None:
    with pytest.raises(StoreRejected, match="reassert: an argument is "):
        await emptied.say(hold_tokens=-1)


Step = Callable[[Emptied], Awaitable[object]]
STEPS: dict[str, Step] = {
    "settled": Emptied.settle,
    "said": Emptied.say,
    "expired": Emptied.sweep,
    "finished": lambda emptied: emptied.finish(settled_tokens=40),
}


@pytest.mark.parametrize("order", list(permutations(STEPS)), ids=", ".join)
async def test_in_every_order_it_is_booked_once_and_nothing_stays_held(
    emptied: Emptied, order: tuple[str, ...]
) -> None:
    await emptied.begin()
    for step in (*order, "settled", "said", "expired"):
        await STEPS[step](emptied)
    found = await emptied.store.snapshot(PAYER)
    assert found is not None
    assert (found.settled_tokens, found.held_tokens, found.open_holds) == (70, 0, 0)
    assert await emptied.leases.count(SHARD) == 0
    booked = await emptied.streams.read({SHARD: "0-0"}, 10, 1)
    assert len(booked) == (2 if _expired_first(order) else 1)


def _expired_first(order: tuple[str, ...]) -> bool:
    """Whether the sweeper ended it, so that its settlement is a correction."""
    return order.index("said") < order.index("expired") < order.index("settled")
