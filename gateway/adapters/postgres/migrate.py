"""Schema changes: numbered SQL files, each applied once, in order, in its own transaction.

Safe to run from several processes at once (an advisory lock lets one work and the others find it
done). What was applied is kept with a checksum: a file that was edited afterwards is an error, for
two databases would then differ without anybody seeing it. Refuses to know what the files do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import asyncpg

from gateway.adapters.postgres.connection import (
    Connection,
    Pool,
    Rejected,
    session,
    transaction,
    translated,
)
from gateway.adapters.postgres.statements import schema

# The files use function bodies in standard SQL, which came with this version.
_SERVER_MAJOR_MIN = 14
# An index on a large ledger takes its time; so does waiting for another process that builds it.
_MIGRATION_S = 3600.0


class MigrationError(Exception):
    """The schema cannot be brought up to date; the text names the file and what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One schema change. Names sort in the order of application."""

    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, in hexadecimal."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def packaged_migrations() -> list[Migration]:
    """The files of this release, in order."""
    folder = files(__package__) / "migrations"
    found = [entry for entry in folder.iterdir() if entry.name.endswith(".sql")]
    return sorted(
        (Migration(entry.name.removesuffix(".sql"), entry.read_text("utf-8")) for entry in found),
        key=lambda migration: migration.name,
    )


async def migrate(pool: Pool, migrations: Sequence[Migration] | None = None) -> list[str]:
    """Apply what is missing; the names applied by this call.

    Names in the database that this release does not know are left alone: a newer release has been
    here, and its changes are made to be safe beside the release before it.
    """
    async with session(pool) as connection:
        major = connection.get_server_version().major
    if major < _SERVER_MAJOR_MIN:
        raise MigrationError(f"PostgreSQL {_SERVER_MAJOR_MIN} or newer is needed, this is {major}")
    applied = []
    for migration in packaged_migrations() if migrations is None else migrations:
        async with transaction(pool) as connection:
            if await _apply(connection, migration):
                applied.append(migration.name)
    return applied


async def _apply(connection: Connection, migration: Migration) -> bool:
    await connection.execute(schema.BEGIN_MIGRATION, timeout=_MIGRATION_S)
    known = await connection.fetchval(schema.MIGRATION_CHECKSUM, migration.name)
    if known == migration.checksum:
        return False
    if known is not None:
        raise MigrationError(
            f"migration {migration.name} was changed after it was applied (checksum "
            f"{migration.checksum[:12]}, applied {known[:12]}): restore the file and put the "
            "change into a new one"
        )
    try:
        with translated():
            await connection.execute(migration.sql, timeout=_MIGRATION_S)
    except (asyncpg.PostgresError, Rejected) as error:
        raise MigrationError(f"migration {migration.name} failed: {error}") from error
    await connection.execute(schema.RECORD_MIGRATION, migration.name, migration.checksum)
    return True
