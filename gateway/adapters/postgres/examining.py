"""What a ledger's database says of itself, read without changing anything.

It promises facts, also of a database in which no gateway has been yet; what is good or bad about
them is judged elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.adapters.postgres.connection import open_pool, session
from gateway.adapters.postgres.migrate import packaged_migrations
from gateway.adapters.postgres.statements import examining

_NEWEST_WITH_ALL_TABLES = "0012"  # the statements below need what it made


@dataclass(frozen=True, slots=True)
class Sending:
    """What was sent last, if anything; how many deliveries wait, and how many were given up."""

    kind: str | None
    sent_ms: int | None
    waiting: int
    dead: int


@dataclass(frozen=True, slots=True)
class LedgerFacts:
    """The server, and the schema as far as it is there.

    `newest`: the last migration applied; None before the first. `missing` are those of this release
    that were not, `changed` those whose text is another now. `lacking`: what this login may not do.
    The rest is None while the schema is older than what it asks.
    """

    version: str
    now_ms: int
    newest: str | None = None
    missing: Sequence[str] = ()
    changed: Sequence[str] = ()
    lacking: Sequence[str] = ()
    has_next_month: bool | None = None
    has_strays: bool | None = None
    dead_rows: int | None = None
    sending: Sending | None = None


async def examine_ledger(url: str) -> LedgerFacts:
    """Connect and look; LedgerUnavailable when it does not answer or refuses the login."""
    pool = await open_pool(url)
    try:
        async with session(pool) as connection:
            server = await connection.fetchrow(examining.SERVER)
            assert server is not None
            version, now_ms = server["version"], server["now_ms"]
            if not server["has_schema"]:
                names = [each.name for each in packaged_migrations()]
                return LedgerFacts(version, now_ms, missing=names)
            applied: dict[str, str] = dict(
                tuple(record) for record in await connection.fetch(examining.MIGRATIONS)
            )
            ours = {each.name: each.checksum for each in packaged_migrations()}
            newest = max(applied, default=None)
            missing = [name for name in ours if name not in applied]
            changed = [name for name in ours if applied.get(name, ours[name]) != ours[name]]
            if newest is None or newest < _NEWEST_WITH_ALL_TABLES:
                return LedgerFacts(version, now_ms, newest, missing, changed)
            lacking = [record["lacking"] for record in await connection.fetch(examining.LACKING)]
            ledger = await connection.fetchrow(examining.LEDGER)
            sending = await connection.fetchrow(examining.SENDING)
    finally:
        await pool.close()
    assert ledger is not None
    assert sending is not None
    return LedgerFacts(
        version, now_ms, newest, missing, changed, lacking, **ledger, sending=Sending(**sending)
    )
