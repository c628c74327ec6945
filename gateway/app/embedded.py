"""Embedded stores as a process needs them: started here, or found running beside us.

The one place that turns `embedded` in the configuration into a URL. What the servers are and how
they live is the launcher's business.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from redis.exceptions import RedisError

from gateway.adapters.embedded import (
    RunningServer,
    postgres_url,
    redis_url,
    start_postgres,
    start_redis,
)
from gateway.adapters.postgres.connection import open_pool
from gateway.adapters.redis_store.streams import open_client
from gateway.config import Settings
from gateway.ports.ledger import LedgerUnavailable

_log = logging.getLogger("gateway.embedded")


def redis_url_of(settings: Settings) -> str:
    """Where Redis is, embedded or not."""
    url = settings.redis.url
    return redis_url(settings.state_dir) if url.is_embedded else url.reveal()


def ledger_url_of(settings: Settings) -> str:
    """Where Postgres is, embedded or not."""
    url = settings.ledger.url
    return postgres_url(settings.state_dir) if url.is_embedded else url.reveal()


@asynccontextmanager
async def embedded_stores(settings: Settings) -> AsyncIterator[Sequence[RunningServer]]:
    """Run those stores that are embedded for as long as the block lasts.

    EmbeddedError when one cannot start, also because another process already runs it.
    """
    starts = []
    if settings.redis.url.is_embedded:
        starts.append(start_redis(settings.state_dir))
    if settings.ledger.url.is_embedded:
        starts.append(start_postgres(settings.state_dir))
    results = await asyncio.gather(*starts, return_exceptions=True)
    running = [result for result in results if isinstance(result, RunningServer)]
    try:
        for result in results:
            if isinstance(result, BaseException):
                raise result
        for server in running:
            _log.info("embedded store: %s", server.engine)
        yield running
    finally:
        await asyncio.gather(*(server.stop() for server in running))


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
