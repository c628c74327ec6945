"""Migrations on an empty database, and connections to servers that do not answer."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from gateway.adapters.postgres import statements
from gateway.adapters.postgres.connection import Pool, Timeouts, open_pool
from gateway.adapters.postgres.migrate import (
    Migration,
    MigrationError,
    migrate,
    packaged_migrations,
)
from gateway.ports.ledger import LedgerUnavailable


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[Pool]:
    """On a database that nobody has migrated."""
    opened = await open_pool(postgres_url)
    yield opened
    opened.terminate()


def test_files_are_numbered_without_gaps() -> None:
    numbers = [re.fullmatch(r"(\d{4})_[a-z_]+", m.name) for m in packaged_migrations()]
    assert [number and int(number[1]) for number in numbers] == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 2


async def test_all_files_are_applied_in_order_and_only_once(pool: Pool) -> None:
    assert await migrate(pool) == [migration.name for migration in packaged_migrations()]
    assert await migrate(pool) == []


async def test_two_processes_at_once_apply_each_file_once(pool: Pool, postgres_url: str) -> None:
    other = await open_pool(postgres_url)
    try:
        first, second = await asyncio.gather(migrate(pool), migrate(other))
    finally:
        other.terminate()
    assert sorted(first + second) == [migration.name for migration in packaged_migrations()]


async def test_an_edited_file_is_refused_by_name(pool: Pool) -> None:
    await migrate(pool)
    first, *rest = packaged_migrations()
    with pytest.raises(MigrationError, match=f"{first.name} was changed after it was applied"):
        await migrate(pool, [replace(first, sql=first.sql + "\n-- harmless"), *rest])


async def test_a_failing_file_leaves_nothing_and_names_itself(pool: Pool) -> None:
    good = Migration("0001_good", "CREATE TABLE good (a int)")
    bad = Migration("0002_bad", "CREATE TABLE half (a int); SELECT nonsense FROM half")
    with pytest.raises(MigrationError, match=r"0002_bad failed: .*nonsense"):
        await migrate(pool, [good, bad])
    assert await pool.fetchval("SELECT to_regclass('good') IS NOT NULL")
    assert await pool.fetchval("SELECT to_regclass('half') IS NULL")
    assert await migrate(pool, [good]) == []


async def test_what_a_newer_release_applied_is_left_alone(pool: Pool) -> None:
    newer = Migration("9999_newer", "CREATE TABLE newer (a int)")
    await migrate(pool, [*packaged_migrations(), newer])
    assert await migrate(pool) == []


async def test_every_statement_fits_the_schema(pool: Pool) -> None:
    await migrate(pool)
    scripts = {"BEGIN_MIGRATION", "READ_LONG"}
    names = {name for name in vars(statements) if name.isupper() and not name.startswith("_")}
    assert scripts < names
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(statements.MAKE_INCOMING)
        for name in sorted(names - scripts):
            await connection.prepare(getattr(statements, name))


async def test_sessions_carry_name_and_time_limits(pool: Pool) -> None:
    shown = {
        name: await pool.fetchval(f"SHOW {name}")
        for name in ("application_name", "jit", "statement_timeout")
    }
    assert shown == {"application_name": "quota-gateway", "jit": "off", "statement_timeout": "8s"}
    assert await pool.fetchval("SHOW idle_in_transaction_session_timeout") == "30s"


async def test_a_closed_port_is_ledger_unavailable() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        with pytest.raises(LedgerUnavailable, match="postgres"):
            await open_pool(f"postgresql://nobody@127.0.0.1:{port}/quota")


async def test_a_silent_server_is_given_up_in_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(LedgerUnavailable, match="no answer in time"):
            await open_pool(f"postgresql://nobody@127.0.0.1:{port}/quota", Timeouts(connect_s=0.2))
        assert time.monotonic() - began < 3


async def test_a_missing_database_is_ledger_unavailable(postgres_url: str) -> None:
    with pytest.raises(LedgerUnavailable, match="does not exist"):
        await open_pool(urlsplit(postgres_url)._replace(path="/nowhere").geturl())
