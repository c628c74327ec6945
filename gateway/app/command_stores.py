"""Stores for a command that ends: those of a gateway that runs beside it, or its own.

A command finds the ledger's schema up to date and the outbox drained, whether a gateway runs or
not, and leaves nothing running that it started.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.adapters.prometheus_metrics import JobsMetrics, ProxyMetrics
from gateway.app.embedded import borrowed_stores
from gateway.app.jobs_process import drain_of
from gateway.app.stores import Stores, open_stores, prepare_ledger
from gateway.config import Settings


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
