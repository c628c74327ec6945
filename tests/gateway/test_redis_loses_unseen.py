"""Redis loses what makes no event: a hold, a change of tier; and nobody calls when it comes back.

As `test_redis_loses.py`, on a Redis of the test's own that goes back to an earlier moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from gateway.app.secrets_of_state import pepper_of
from gateway.app.verify import verify
from gateway.core.identity import shard_of
from gateway.jobs.project import Projection
from gateway.ports.quota_store import StoreUnavailable
from tests.gateway.running_gateway import MakeGateway
from tests.gateway.test_redis_loses import (
    CHARGE,
    Gateway,
    OwnRedis,
    draining,
    gateways,
    own_redis,
    settings_on,
)

__all__ = ["own_redis"]
_WITHIN_S = 20


async def until(found: Callable[[], Awaitable[bool]]) -> None:
    """Asked again until it is so; a server that is not there yet is no answer."""
    async with asyncio.timeout(_WITHIN_S):
        while True:
            try:
                if await found():
                    return
            except StoreUnavailable:
                pass
            await asyncio.sleep(0.05)


async def has_epochs(gateway: Gateway) -> bool:
    return bool(await gateway.stores.store.epochs())


async def test_a_lost_hold_is_noticed_without_a_call_and_held_again(
    make_gateway: MakeGateway, own_redis: OwnRedis, postgres_url: str
) -> None:
    settings = settings_on(make_gateway, own_redis.server.url, postgres_url)
    async with gateways(settings, count=2) as (first, other):
        accounts = first.stores.accounts(settings)
        await accounts.create_user("ann", "free")
        key = (await accounts.create_key("ann", pepper_of(settings))).key
        await first.settle(await first.admit(key))
        await first.worker.settlements.confirmed()
        await own_redis.remember()
        await until(lambda: has_epochs(first))
        admitted = await first.admit(key)
        first.worker.open_holds.add(admitted.hold)
        await own_redis.go_back()

        async def is_held() -> bool:
            seen = await other.stores.store.snapshot("ann")
            return seen is not None and (seen.epoch, seen.open_holds) == (2, 1)

        async def is_noticed() -> bool:
            epochs = await other.stores.store.epochs()
            return epochs[shard_of("ann", settings.redis.shards)] == 2

        await until(is_noticed)
        async with draining(settings, first.stores):
            assert await other.outcome(key) == "admitted"  # its account comes back with that
            await until(is_held)
            await first.settle(admitted)
            await first.worker.settlements.confirmed()
            verdict = await verify(first.stores, None, 30)
        assert verdict.agrees
        assert verdict.open_holds == 0
        assert [line.ledger_tokens for line in verdict.lines] == [2 * CHARGE]


async def test_a_lost_change_of_tier_binds_again_on_the_server_that_lost_it(
    make_gateway: MakeGateway, own_redis: OwnRedis, postgres_url: str
) -> None:
    settings = settings_on(make_gateway, own_redis.server.url, postgres_url)
    async with gateways(settings, count=1) as (only,):
        stores = only.stores
        accounts = stores.accounts(settings)
        projection = Projection(stores.directory, stores.store, stores.streams, stores.clock)
        await accounts.create_user("ann", "free")
        await accounts.show("ann")  # from here on Redis has the account
        await projection.step()
        await own_redis.remember()

        await until(lambda: has_epochs(only))
        await accounts.set_tier("ann", "lite")
        await projection.step()
        assert await stores.directory.unprojected(9) == []
        identity, before = await accounts.show("ann")
        await own_redis.go_back()

        async def is_projected() -> bool:
            await projection.step()
            return True

        await until(is_projected)
        seen = await stores.store.snapshot("ann")
        assert seen is not None
        assert (seen.rev, seen.epoch) == (before.rev, before.epoch) == (identity.rev, 1)
