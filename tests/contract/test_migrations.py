"""Migrations on an empty database, and connections to servers that do not answer."""

from __future__ import annotations

import asyncio
import pkgutil
import re
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from types import ModuleType
from urllib.parse import urlsplit

import asyncpg
import pytest

from gateway.adapters.postgres import statements
from gateway.adapters.postgres.connection import Pool, Timeouts, open_pool
from gateway.adapters.postgres.directory import PostgresDirectory
from gateway.adapters.postgres.migrate import (
    Migration,
    MigrationError,
    migrate,
    packaged_migrations,
)
from gateway.adapters.postgres.statements import (
    arrivals,
    closing,
    corrections,
    directory,
    drain,
    examining,
    grants,
    history,
    listings,
    notices,
    operators,
    payers,
    payments,
    reports,
    sales,
    schema,
    tiers,
)
from gateway.core.identity import Identity
from gateway.core.period import Calendar
from gateway.ports.ledger import LedgerUnavailable
from tests.contract.ledger_samples import until

STATEMENTS = (
    *(arrivals, closing, corrections, directory, drain, examining, grants, history, listings),
    *(notices, operators, payers, payments, reports, sales, schema, tiers),
)
# What the release that knows only the first two files sends while the third is applied.
FIRST_RELEASE = (
    """
    CREATE TEMP TABLE IF NOT EXISTS incoming (LIKE ledger INCLUDING DEFAULTS) ON COMMIT DELETE ROWS
    """,
    """
    INSERT INTO incoming (event_id, period, kind, at, payer, user_id, charged_tokens, quality,
                          outcome, shard, epoch, stream_id)
    VALUES (gen_random_uuid(), instant(0), 'usage', now(), 'ann', 'ann', 30, 'measured', 'done',
            0, 1, '1-0')
    """,
    """
    WITH booked AS (
        INSERT INTO ledger SELECT * FROM incoming ON CONFLICT (event_id, period) DO NOTHING
        RETURNING payer, period, charged_tokens
    )
    INSERT INTO period_usage AS kept (payer, period, settled_tokens, cost_nano_gbp, rows)
    SELECT payer, period, sum(charged_tokens), 0, count(*) FROM booked GROUP BY payer, period
    ON CONFLICT (payer, period) DO UPDATE SET
        settled_tokens = kept.settled_tokens + excluded.settled_tokens
    """,
    """
    INSERT INTO shards AS kept (shard, epoch, cursor) VALUES (0, 1, '1-0')
    ON CONFLICT (shard) DO UPDATE SET cursor = excluded.cursor
    """,
    """
    INSERT INTO users (user_id, payer, tier, anchor_day, zone)
    SELECT 'user' || count(*), 'user' || count(*), 'free', 28, 'UTC' FROM users
    """,
)


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


async def test_the_release_before_runs_on_beside_the_third_file(
    pool: Pool, postgres_url: str
) -> None:
    """In a session that was open before: its temporary table and its plans are the old ones."""
    await migrate(pool, packaged_migrations()[:2])
    running = await asyncpg.connect(postgres_url)
    plans = []
    async with running.transaction():
        for text in FIRST_RELEASE:
            await running.execute(text)
            plans.append(await running.prepare(text))
    assert await migrate(pool) == [migration.name for migration in packaged_migrations()[2:]]
    async with running.transaction():
        for plan in plans:
            await plan.fetch()
    await running.close()
    assert await pool.fetchval("SELECT settled_tokens FROM period_usage") == 60
    assert await pool.fetchval("SELECT server_id FROM shards") == ""
    found = await PostgresDirectory(pool, "tester").identity_of_user("user1")
    assert found == Identity("user1", "user1", "free", 1, Calendar(28, "UTC"))


async def test_the_third_file_waits_for_a_drain_without_a_deadlock(
    pool: Pool, postgres_url: str
) -> None:
    await migrate(pool, packaged_migrations()[:2])
    running = await asyncpg.connect(postgres_url)
    async with running.transaction():
        for text in FIRST_RELEASE[:3]:
            await running.execute(text)
        migrating = asyncio.ensure_future(migrate(pool))
        await until(lambda: running.fetchval("SELECT true FROM pg_locks WHERE NOT granted"))
        await running.execute(FIRST_RELEASE[3])
    await running.close()
    assert await migrating == [migration.name for migration in packaged_migrations()[2:]]


def statements_of(module: ModuleType) -> dict[str, str]:
    return {name: text for name, text in vars(module).items() if re.fullmatch(r"[A-Z_]+", name)}


def test_every_module_of_statements_is_known() -> None:
    found = {module.name for module in pkgutil.iter_modules(statements.__path__)}
    assert found == {module.__name__.rpartition(".")[2] for module in STATEMENTS}


@pytest.mark.parametrize("module", STATEMENTS, ids=lambda module: module.__name__)
async def test_every_statement_fits_the_schema(pool: Pool, module: ModuleType) -> None:
    await migrate(pool)
    scripts = {"BEGIN_MIGRATION", "READ_LONG"}  # several statements each
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(drain.MAKE_INCOMING)
        for name, text in statements_of(module).items():
            if name not in scripts and not name.startswith("_"):
                await connection.prepare(text)


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
