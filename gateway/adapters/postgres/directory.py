"""Users and their keys on Postgres.

Promises what `gateway.ports.ledger.Directory` says: each change is one transaction that raises the
user's revision and leaves an audit row with its author. Knows only digests of keys, and refuses to
know what a tier grants.
"""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from gateway.adapters.postgres import statements
from gateway.adapters.postgres.connection import (
    Connection,
    Pool,
    Rejected,
    session,
    transaction,
)
from gateway.core.identity import Identity, valid_user_id
from gateway.ports.ledger import Adjustment, Conflict
from gateway.ports.quota_store import Entitlement


class PostgresDirectory:
    """Fulfils the port `Directory`. `author` stands in the audit beside each change."""

    def __init__(self, pool: Pool, author: str) -> None:
        self._pool = pool
        self._author = author

    async def identity_of_key(self, digest: bytes) -> Identity | None:
        async with session(self._pool) as connection:
            found = await connection.fetchrow(statements.IDENTITY_OF_KEY, digest)
        return None if found is None else Identity(**found)

    async def identity_of_user(self, user_id: str) -> Identity | None:
        if not valid_user_id(user_id):  # comes from tokens and headers; text cannot hold a NUL
            return None
        async with session(self._pool) as connection:
            found = await connection.fetchrow(statements.IDENTITY_OF_USER, user_id)
        return None if found is None else Identity(**found)

    async def entitlement(self, payer: str, period_start_ms: int) -> Entitlement | None:
        async with session(self._pool) as connection:
            found = await connection.fetchrow(statements.ENTITLEMENT, payer, period_start_ms)
        if found is None or found["rev"] is None:
            return None
        return Entitlement(payer, found["rev"], period_start_ms, found["adjusted_tokens"])

    async def users(self) -> Sequence[Identity]:
        async with session(self._pool) as connection:
            return [Identity(**found) for found in await connection.fetch(statements.USERS)]

    async def unprojected(self, rows_max: int) -> Sequence[Identity]:
        async with session(self._pool) as connection:
            found = await connection.fetch(statements.UNPROJECTED, rows_max)
        return [Identity(**record) for record in found]

    async def mark_projected(self, user_id: str, rev: int) -> None:
        async with session(self._pool) as connection:
            await connection.execute(statements.MARK_PROJECTED, user_id, rev)

    async def create_user(self, user_id: str, tier: str, anchor_day: int, zone: str) -> Identity:
        if not valid_user_id(user_id):
            raise Conflict(
                f"user id {user_id!r} is not valid: 1 to 128 letters, digits and ._:@+-, "
                "beginning with a letter or digit"
            )
        return await self._change(
            f"user {user_id} exists already",
            statements.CREATE_USER, user_id, tier, anchor_day, zone, self._author,
        )  # fmt: skip

    async def set_tier(self, user_id: str, tier: str) -> Identity:
        return await self._change(
            _no_user(user_id), statements.SET_TIER, user_id, tier, self._author
        )

    async def create_key(self, key_id: str, user_id: str, digest: bytes) -> Identity:
        return await self._change(
            _no_user(user_id), statements.CREATE_KEY, key_id, user_id, digest, self._author
        )

    async def revoke_key(self, key_id: str) -> Identity:
        return await self._change(
            f"there is no key {key_id}", statements.REVOKE_KEY, key_id, self._author
        )

    async def adjust(self, adjustment: Adjustment) -> Identity:
        try:
            async with transaction(self._pool) as connection:
                owner = await connection.fetchrow(statements.LOCK_USER, adjustment.user_id)
                if owner is None:
                    raise Conflict(_no_user(adjustment.user_id))
                changed = await _adjust(connection, adjustment)
        except Rejected as error:
            raise Conflict(f"the adjustment cannot be booked: {error}") from error
        return Identity(**(changed or owner))

    async def _change(self, refusal: str, statement: str, *arguments: object) -> Identity:
        """Run a change; Conflict with `refusal` when it finds nothing to change."""
        try:
            async with session(self._pool) as connection:
                changed = await connection.fetchrow(statement, *arguments)
        except Rejected as error:
            raise Conflict(f"not possible: {error}") from error
        if changed is None:
            raise Conflict(refusal)
        return Identity(**changed)


def _no_user(user_id: str) -> str:
    return f"there is no user {user_id}"


async def _adjust(connection: Connection, adjustment: Adjustment) -> asyncpg.Record | None:
    """The user as changed, or None when the same adjustment was booked before."""
    booked = await connection.fetchrow(statements.BOOKED_ADJUSTMENT, adjustment.event_id)
    if booked is None:
        return await connection.fetchrow(
            statements.ADJUST,
            adjustment.event_id,
            adjustment.user_id,
            adjustment.period_start_ms,
            adjustment.tokens,
            adjustment.reason,
            adjustment.author,
        )
    asked = (adjustment.user_id, adjustment.period_start_ms, adjustment.tokens)
    if tuple(booked) != asked:
        raise Conflict(
            f"{adjustment.event_id} is booked already as something else "
            f"(user {booked['user_id']}, {booked['charged_tokens']} tokens): take a new id"
        )
    return None
