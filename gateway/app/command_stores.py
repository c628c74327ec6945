"""Stores for a command that ends: those of a gateway that runs beside it, or its own.

A command finds the ledger's schema up to date and the outbox drained, whether a gateway runs or
not, and leaves nothing running that it started.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.exceptions import RedisError

from gateway.adapters.postgres.connection import open_pool
from gateway.adapters.prometheus_jobs_metrics import JobsMetrics
from gateway.adapters.prometheus_metrics import ProxyMetrics
from gateway.adapters.redis_store.clients import open_client
from gateway.app.embedded import embedded_stores, ledger_url_of, redis_url_of
from gateway.app.jobs_process import drain_of
from gateway.app.ledger_schema import prepare_ledger
from gateway.app.stores import Stores, open_stores
from gateway.config import Settings
from gateway.ports.ledger import LedgerUnavailable


@asynccontextmanager
async def opened_for_command(settings: Settings, author: str) -> AsyncIterator[Stores]:
    """Both stores, ready for work. With no drain running, the outbox is drained first, so that an
    account can be brought back from the ledger."""
    metrics = ProxyMetrics(settings.models)
    async with borrowed_stores(settings):
        await prepare_ledger(settings)
        async with open_stores(settings, metrics, author) as stores:
            if await stores.ledger.lock_shards(settings.redis.shards):
                await drain_of(settings, stores, JobsMetrics()).drain_all()
                stores.ledger.unlock_shards()
            yield stores


@asynccontextmanager
async def borrowed_stores(settings: Settings) -> AsyncIterator[None]:
    """Embedded stores for a command: those that run already are used as they are."""
    any_embedded = settings.redis.url.is_embedded or settings.ledger.url.is_embedded
    if not any_embedded or await _answer(settings):
        yield
    else:
        async with embedded_stores(settings):
            yield


async def _answer(settings: Settings) -> bool:
    """Whether the embedded stores of this state directory run already."""
    try:
        if settings.ledger.url.is_embedded:
            await (await open_pool(ledger_url_of(settings))).close()
        if settings.redis.url.is_embedded:
            client = open_client(redis_url_of(settings))
            try:
                await client.ping()
            finally:
                await client.aclose()
    except (LedgerUnavailable, RedisError):
        return False
    return True
