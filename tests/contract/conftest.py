"""One migrated database a session, empty for each contract test; and both adapters of Upstream.

Emptying takes a few milliseconds where a database of its own takes some hundred.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from urllib.parse import urlsplit

import asyncpg
import pytest
import uvloop

from gateway.adapters.embedded import RunningServer
from gateway.adapters.postgres.connection import Pool, open_pool
from gateway.adapters.postgres.directory import PostgresDirectory
from gateway.adapters.postgres.ledger import PostgresLedger
from gateway.adapters.postgres.migrate import migrate
from gateway.adapters.upstream.direct import DirectUpstream
from gateway.adapters.upstream.session import SessionUpstream
from tests.contract.upstream_calls import OpenTo, opener

# What an earlier test left connected may still hold locks. The role of a replica passes the
# triggers by which the ledger refuses to be emptied; only a superuser may take it.
_EMPTY = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid();
SET session_replication_role = replica;
DELETE FROM ledger; DELETE FROM shards; DELETE FROM shard_count; DELETE FROM period_usage;
DELETE FROM ledger_dead; DELETE FROM users; DELETE FROM api_keys; DELETE FROM audit;
DELETE FROM tier_usage; DELETE FROM refunds; DELETE FROM packs; DELETE FROM payments;
DELETE FROM payment_events; DELETE FROM admin_tokens; DELETE FROM admin_requests;
DELETE FROM deliveries; DELETE FROM notifications; DELETE FROM preferences;
"""


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What speaks to an upstream has to do so on both event loops."""
    if item.path.name.startswith("test_upstream"):
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture(params=[DirectUpstream, SessionUpstream], ids=["direct", "session"])
def open_to(request: pytest.FixtureRequest) -> OpenTo:
    return opener(request.param)


@pytest.fixture(scope="session")
def migrated_url(postgres_server: RunningServer) -> str:
    url = urlsplit(postgres_server.url)._replace(path="/contracts").geturl()

    async def make() -> None:
        connection = await asyncpg.connect(postgres_server.url)
        await connection.execute("CREATE DATABASE contracts TEMPLATE template0")
        await connection.close()
        pool = await open_pool(url)
        await migrate(pool)
        await pool.close()

    asyncio.run(make())
    return url


@pytest.fixture(params=["fast", "plain"])
def client(request: pytest.FixtureRequest) -> str:
    """Each way by which calls go to Redis; for the suites about calls. The others take `fast`."""
    kind: str = request.param
    return kind


@pytest.fixture(params=["redis_url", "cluster_url"], ids=["one", "cluster"])
def each_url(request: pytest.FixtureRequest) -> str:
    """One server, then a cluster; for the suites about what is kept there."""
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture
def ledger_url(migrated_url: str) -> str:
    """A migrated database without a row."""

    async def empty() -> None:
        connection = await asyncpg.connect(migrated_url)
        await connection.execute(_EMPTY)
        await connection.close()

    asyncio.run(empty())
    return migrated_url


@pytest.fixture
async def pool(ledger_url: str) -> AsyncIterator[Pool]:
    opened = await open_pool(ledger_url)
    yield opened
    opened.terminate()


@pytest.fixture
async def ledger(pool: Pool, ledger_url: str) -> AsyncIterator[PostgresLedger]:
    opened = PostgresLedger(pool, ledger_url)
    yield opened
    opened.unlock_shards()


@pytest.fixture
def directory(pool: Pool) -> PostgresDirectory:
    return PostgresDirectory(pool, "tester")
