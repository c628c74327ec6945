"""Tokens of operators, their audit and their answers, on Postgres.

Promises what `gateway.ports.operators.Operators` says. Knows digests of tokens, never a token, and
refuses to know what a scope allows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import asyncpg

from gateway.adapters.postgres.connection import Pool, Rejected, session
from gateway.adapters.postgres.statements import operators
from gateway.ports.ledger import Conflict
from gateway.ports.operators import Begun, MoneyRequest, NewToken, Note, TokenRecord


class PostgresOperators:
    """Fulfils the port `Operators`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def token_of(self, digest: bytes) -> TokenRecord | None:
        async with session(self._pool) as connection:
            found = await connection.fetchrow(operators.TOKEN_OF, digest)
        return None if found is None else _token(found)

    async def create_token(self, token: NewToken) -> TokenRecord:
        try:
            async with session(self._pool) as connection:
                (created,) = await connection.fetch(
                    operators.CREATE_TOKEN,
                    token.token_id, token.name, token.digest, token.scopes, token.who,
                )  # fmt: skip
        except Rejected as error:
            raise Conflict(f"the token cannot be kept: {error}") from error
        return _token(created)

    async def tokens(self) -> Sequence[TokenRecord]:
        async with session(self._pool) as connection:
            return [_token(found) for found in await connection.fetch(operators.TOKENS)]

    async def revoke_token(self, token_id: str, who: str) -> TokenRecord | None:
        async with session(self._pool) as connection:
            found = await connection.fetchrow(operators.REVOKE_TOKEN, token_id, who)
        return None if found is None else _token(found)

    async def note(self, note: Note) -> None:
        async with session(self._pool) as connection:
            await connection.execute(
                operators.NOTE, note.who, note.what, note.user_id, json.dumps(note.detail)
            )

    async def begun(self, token_id: str, key: str) -> Begun | None:
        async with session(self._pool) as connection:
            kept = await connection.fetchrow(operators.BEGUN, token_id, key)
        return None if kept is None else _begun(kept)

    async def begin(self, request: MoneyRequest) -> Begun:
        of = request.token_id, request.key
        async with session(self._pool) as connection:
            await connection.execute(
                operators.BEGIN, *of, request.digest, request.event_id, json.dumps(request.intent)
            )
            (kept,) = await connection.fetch(operators.BEGUN, *of)
        return _begun(kept)

    async def answered(self, token_id: str, key: str, answer: bytes) -> bytes:
        async with session(self._pool) as connection:
            kept: bytes = await connection.fetchval(operators.ANSWERED, token_id, key, answer)
        return kept


def _begun(record: asyncpg.Record) -> Begun:
    return Begun(
        record["digest"], record["event_id"], json.loads(record["intent"]), record["answer"]
    )


def _token(record: asyncpg.Record) -> TokenRecord:
    fields = dict(record)
    return TokenRecord(**fields | {"scopes": tuple(fields["scopes"])})
