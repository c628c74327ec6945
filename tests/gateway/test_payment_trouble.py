"""Payment events while a store is away: Stripe is told to come again, or the jobs do the rest.

A worker's own parts run here in this process, on stores that the tests take away.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from urllib.parse import urlsplit

import asyncpg
import pytest

from gateway.adapters.embedded import RunningServer
from gateway.adapters.prometheus_metrics import ProxyMetrics
from gateway.adapters.spill import SpillFiles
from gateway.adapters.upstream.direct import DirectUpstream
from gateway.app.ledger_schema import prepare_ledger
from gateway.app.payments import open_provider
from gateway.app.proxy_process import Worker, loaded_tokenizer
from gateway.app.proxy_terms import bounds_of
from gateway.app.secrets_of_state import pepper_of
from gateway.app.stores import Stores, open_stores
from gateway.core.quota.entitle import Pack
from gateway.jobs.project import Projection
from gateway.ports.quota_store import StoreUnavailable
from gateway.web.servers import listen_raw
from tests.contract.ledger_samples import until
from tests.frozen_redis import frozen
from tests.gateway.loopback import Reply, ask
from tests.gateway.running_gateway import MakeGateway
from tests.stripe_api import StripeApi, event, paid, sells_through, signature

USER, PACK = "ann", 320_000


@dataclass
class Shop:
    """A worker that sells, and a user with an order that is not paid."""

    url: str
    key: str
    stores: Stores
    api: StripeApi
    raw: bytes = b""

    async def buy(self) -> Reply:
        headers = {"Authorization": f"Bearer {self.key}"}
        return await asyncio.to_thread(ask, f"{self.url}/quota/v1/topup", "POST", None, headers)

    async def post(self) -> Reply:
        headers = {"Stripe-Signature": signature(self.raw)}
        where = f"{self.url}/quota/v1/payments/stripe"
        return await asyncio.to_thread(ask, where, "POST", self.raw, headers)

    async def packs(self) -> list[int]:
        return [pack.left_tokens for pack in await self.stores.sales.packs(USER)]

    async def known(self) -> tuple[Pack, ...]:
        """What Redis has."""
        snapshot = await self.stores.store.snapshot(USER)
        assert snapshot is not None
        return snapshot.packs


@pytest.fixture
def api() -> Iterator[StripeApi]:
    server = StripeApi()
    yield server
    server.stop()


@pytest.fixture
async def shop(
    make_gateway: MakeGateway, api: StripeApi, redis_url: str, postgres_url: str
) -> AsyncIterator[Shop]:
    settings = make_gateway(
        **sells_through(api),
        redis={"url": redis_url, "deadline_ms": 150},
        ledger={"url": postgres_url},
        identity={"keys": {"pepper": "a-pepper-of-this-test"}},
    ).settings
    await prepare_ledger(settings)
    async with AsyncExitStack() as stack:
        metrics = ProxyMetrics(settings.models)
        stores = await stack.enter_async_context(open_stores(settings, metrics, "tests", 0.15))
        spill = SpillFiles(settings.state_dir / "spill", "proxy", metrics)
        stack.callback(spill.close)
        upstream, provider = DirectUpstream({}), open_provider(settings)
        assert provider is not None
        stack.push_async_callback(upstream.close)
        stack.push_async_callback(provider.close)
        outside = (upstream, provider)
        worker = Worker(settings, (stores, spill), metrics, loaded_tokenizer(settings), outside)
        listener = await listen_raw(worker.front.handle, "127.0.0.1", 0, bounds_of(settings))
        stack.push_async_callback(listener.close)
        accounts = stores.accounts(settings)
        await accounts.create_user(USER, "full")
        key = (await accounts.create_key(USER, pepper_of(settings))).key
        await accounts.show(USER)  # the account is in Redis from now on
        made = Shop(listener.url("127.0.0.1"), key, stores, api)
        assert (await made.buy()).status == 200
        (session,) = api.sessions.values()
        made.raw = event("checkout.session.completed", paid(session))
        yield made


async def take_away(server: RunningServer, url: str, is_away: bool) -> None:
    """Whether Postgres takes nobody into this database; who is in it is thrown out."""
    name = urlsplit(url).path[1:]
    connection = await asyncpg.connect(server.url)
    await connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {not is_away}")
    await connection.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1", name
    )
    await connection.close()


async def test_while_postgres_is_away_stripe_is_told_to_come_again(
    shop: Shop, postgres_server: RunningServer, postgres_url: str
) -> None:
    await take_away(postgres_server, postgres_url, True)
    for reply in (await shop.post(), await shop.buy()):
        assert reply.code == (503, "quota_backend_unavailable")
    await take_away(postgres_server, postgres_url, False)
    assert [(await shop.post()).status for _ in range(2)] == [200, 200]
    assert await shop.packs() == [PACK]
    assert [pack.tokens for pack in await shop.known()] == [PACK]


async def test_while_redis_is_away_the_payment_is_kept_and_the_jobs_tell_redis(
    shop: Shop, redis_url: str
) -> None:
    with frozen(redis_url):
        assert (await shop.post()).status == 200
        assert await shop.packs() == [PACK]
    stores = shop.stores
    projection = Projection(stores.directory, stores.store, stores.streams, stores.clock)
    assert [each.user_id for each in await stores.directory.unprojected(9)] == [USER]
    await until(lambda: told(projection))  # the breaker closes by itself
    assert [pack.tokens for pack in await shop.known()] == [PACK]


async def told(projection: Projection) -> bool:
    """Whether the job could tell Redis all there is."""
    try:
        await projection.step()
    except StoreUnavailable:
        return False
    return True
