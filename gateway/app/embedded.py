"""Embedded stores as a process needs them.

The one place that turns `embedded` in the configuration into a URL. What the servers are and how
they live is the launcher's business.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from gateway.adapters.embedded import (
    RunningServer,
    postgres_url,
    redis_url,
    start_postgres,
    start_redis,
)
from gateway.config import Settings

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
