"""Real stores for every test that wants one, started by the product's own launcher.

One Redis and one Postgres a session (under xdist: a worker), each test seeing them empty. The
engine is what the launcher finds, or what QUOTA_EMBEDDED demands. Where nothing is found a test is
skipped with the reason; with CI=true it fails, so that a missing engine cannot pass for a success.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import asyncpg
import pytest
import redis

from gateway.adapters.embedded import (
    EmbeddedError,
    RunningServer,
    start_postgres,
    start_redis,
)
from tests.redis_nodes import RedisCluster, open_cluster


@pytest.fixture(scope="session")
def missing() -> Callable[[str], NoReturn]:
    """Say that the machine lacks something a test needs: a skip, or with CI=true a failure."""

    def say(reason: str) -> NoReturn:
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)

    return say


@pytest.fixture(scope="session")
def stores_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="quota-stores-") as place:
        yield Path(place)


@pytest.fixture(scope="session")
def redis_server(stores_dir: Path, missing: Callable[[str], NoReturn]) -> Iterator[RunningServer]:
    try:
        server = asyncio.run(start_redis(stores_dir))
    except EmbeddedError as error:
        missing(str(error))
    yield server
    asyncio.run(server.stop())


@pytest.fixture(scope="session")
def postgres_server(
    stores_dir: Path, missing: Callable[[str], NoReturn]
) -> Iterator[RunningServer]:
    try:
        server = asyncio.run(start_postgres(stores_dir))
    except EmbeddedError as error:
        missing(str(error))
    yield server
    asyncio.run(server.stop())


@pytest.fixture
def redis_url(redis_server: RunningServer) -> str:
    """The session's Redis, emptied."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture(scope="session")
def redis_cluster(missing: Callable[[str], NoReturn]) -> Iterator[RedisCluster]:
    """Three primaries for the whole session, which no test kills."""
    with tempfile.TemporaryDirectory(prefix="qg-cluster-") as place, ExitStack() as stack:
        try:
            cluster = stack.enter_context(open_cluster(Path(place)))
        except EmbeddedError as error:
            missing(str(error))
        yield cluster


@pytest.fixture
def cluster_url(redis_cluster: RedisCluster) -> str:
    """The session's cluster, emptied."""
    redis_cluster.flush()
    return redis_cluster.url


@pytest.fixture(scope="session")
def template_database() -> str:
    """What each test's database is a copy of; a conftest nearer to the tests may override it."""
    return "template0"


@pytest.fixture
def postgres_url(postgres_server: RunningServer, template_database: str) -> Iterator[str]:
    """A database of the test's own, dropped after it, whoever is still connected."""
    name = f"test_{uuid.uuid4().hex}"
    asyncio.run(
        _execute(postgres_server.url, f"CREATE DATABASE {name} TEMPLATE {template_database}")
    )
    yield urlsplit(postgres_server.url)._replace(path=f"/{name}").geturl()
    asyncio.run(_execute(postgres_server.url, f"DROP DATABASE {name} WITH (FORCE)"))


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
