"""Of several gateways one drains for all. When it is cut off from Redis, another does."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from gateway.adapters.prometheus_metrics import ProxyMetrics
from gateway.app.secrets_of_state import pepper_of
from gateway.app.stores import open_stores
from tests.contract.redis_link import open_link
from tests.gateway.running_gateway import MakeGateway
from tests.gateway.test_redis_loses import Gateway, draining, gateways, settings_on

ENOUGH_S = 30.0  # a deadline for what is to come; nothing waits so long unless it fails


async def test_a_drainer_that_is_cut_off_from_redis_does_not_stop_the_drain(
    make_gateway: MakeGateway, redis_url: str, postgres_url: str, tmp_path: Path
) -> None:
    settings = settings_on(make_gateway, redis_url, postgres_url)
    async with gateways(settings, count=1) as (sound,), AsyncExitStack() as stack:
        accounts = sound.stores.accounts(settings)
        await accounts.create_user("ann", "free")
        key = (await accounts.create_key("ann", pepper_of(settings))).key
        async with open_link(redis_url, tmp_path) as link:
            linked = settings_on(make_gateway, link.url, postgres_url)
            opened = open_stores(linked, ProxyMetrics(linked.models), "tests")
            stores = await stack.enter_async_context(opened)
            await stack.enter_async_context(draining(linked, stores))
            await books(sound, key, calls=1)
        async with draining(settings, sound.stores):
            await books(sound, key, calls=2)


async def books(gateway: Gateway, key: str, calls: int) -> None:
    """Makes a call; returns once it is booked, and `calls` of them are."""
    await gateway.settle(await gateway.admit(key))
    async with asyncio.timeout(ENOUGH_S):
        while True:
            if len(await gateway.stores.reports.charges(None, calls)) == calls:
                return
            await asyncio.sleep(0.05)
