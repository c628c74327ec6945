"""The ledger's schema, brought up to date before anything uses it.

Done by whoever starts: `serve`, a command, or `migrate` on its own. Any number may do it at once.
"""

from __future__ import annotations

from gateway.adapters.clock import SystemClock
from gateway.adapters.postgres.connection import open_pool
from gateway.adapters.postgres.ledger import PostgresLedger
from gateway.adapters.postgres.migrate import migrate
from gateway.app.embedded import ledger_url_of
from gateway.config import Settings


async def prepare_ledger(settings: Settings) -> list[str]:
    """Apply what is missing and make partitions ahead; the names of what was applied."""
    pool = await open_pool(ledger_url_of(settings))
    try:
        applied = await migrate(pool)
        ledger = PostgresLedger(pool, ledger_url_of(settings))
        await ledger.prepare_partitions(SystemClock().now_ms())
        return applied
    finally:
        await pool.close()
