"""The role that dashboards read the ledger with: what it may see, and that it changes nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from typing import NoReturn, TypeAlias

import asyncpg
import pytest

from gateway.adapters.postgres.connection import open_pool
from gateway.adapters.postgres.migrate import migrate
from tests.boards.panels import asks
from tests.deploy.facts import DEPLOY

PASSWORD = "o'clock\"; --"  # psql has to quote it
READER = DEPLOY / "postgres" / "reader.sql"
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


def apply(url: str) -> None:
    done = subprocess.run(
        ["psql", "--no-psqlrc", "--quiet", f"--file={READER}", url],
        env={**os.environ, "READER_PASSWORD": PASSWORD},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
async def reader(
    postgres_url: str, missing: Callable[[str], NoReturn]
) -> AsyncIterator[Connection]:
    """Connected as the role, to a ledger of the newest schema."""
    if shutil.which("psql") is None:
        missing("psql is not installed (Debian package postgresql-client)")
    pool = await open_pool(postgres_url)
    try:
        await migrate(pool)
    finally:
        await pool.close()
    apply(postgres_url)
    apply(postgres_url)  # as after an upgrade
    connection = await asyncpg.connect(postgres_url, user="grafana", password=PASSWORD)
    try:
        yield connection
    finally:
        await connection.close()


async def test_it_reads_figures_and_neither_keys_nor_addresses(reader: Connection) -> None:
    for relation in (
        "ledger", "ledger_gbp", "usage_by_model", "period_usage", "tier_usage", "pack_balances",
        "notifications", "shards", "ledger_dead",
    ):  # fmt: skip
        assert await reader.fetch(f"TABLE {relation}") == []
    assert await reader.fetch("SELECT user_id, tier, limits FROM users") == []
    for secret in (
        "api_keys", "admin_tokens", "admin_requests", "deliveries", "preferences", "payments",
        "payment_events", "audit", "identities",
    ):  # fmt: skip
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await reader.fetch(f"TABLE {secret}")
    for address in ("SELECT email FROM users", "SELECT address FROM deliveries"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await reader.fetch(address)


async def test_it_may_read_what_the_boards_show(reader: Connection) -> None:
    questions = [each.sql("ada") for each in asks() if each.is_sql]
    assert questions
    for question in questions:
        await reader.fetch(question)


async def test_it_can_write_nothing_and_hold_nothing_up(reader: Connection) -> None:
    await reader.execute("SET default_transaction_read_only = off")
    for statement in (
        "INSERT INTO shards (shard, epoch, cursor) VALUES (0, 0, '0-0')",
        "UPDATE period_usage SET rows = 0",
        "DELETE FROM packs",
        "CREATE TABLE mine (a int)",
        "CREATE ROLE another",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await reader.execute(statement)
    assert await reader.fetchval("SHOW statement_timeout") == "15s"


async def test_the_password_is_the_one_that_was_given(
    reader: Connection, postgres_url: str
) -> None:
    """As Postgres keeps it, not in the clear; and the role is the one Grafana is told of."""
    owner = await asyncpg.connect(postgres_url)
    try:
        kept = await owner.fetchval("SELECT rolpassword FROM pg_authid WHERE rolname = 'grafana'")
    finally:
        await owner.close()
    assert kept.startswith("SCRAM-SHA-256$")
    assert PASSWORD not in kept
    assert "QUOTA_LEDGER_USER: grafana" in (DEPLOY / "compose.yaml").read_text()
