"""Statements that apply schema changes.

Promise that one process at a time applies them, and that no busy table is waited for so long that
others queue behind. What a change does stands in its own file.
"""

from __future__ import annotations

# Any number that nobody else in the database uses for an advisory lock.
_MIGRATION_LOCK = 0x7167_0001

# Wait for another process as long as it takes, but for a busy table only ten seconds: whoever
# waits for an exclusive lock makes everybody else wait behind it.
BEGIN_MIGRATION = f"""
SET LOCAL statement_timeout = 0;
SET LOCAL lock_timeout = 0;
SELECT pg_advisory_xact_lock({_MIGRATION_LOCK});
SET LOCAL lock_timeout = '10s';
SET LOCAL client_min_messages = warning;
CREATE TABLE IF NOT EXISTS schema_migrations (
    name       text        PRIMARY KEY,
    checksum   text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
"""

MIGRATION_CHECKSUM = "SELECT checksum FROM schema_migrations WHERE name = $1"

RECORD_MIGRATION = "INSERT INTO schema_migrations (name, checksum) VALUES ($1, $2)"
