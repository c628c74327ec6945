"""Tokens of the admin API: made and shown once, listed, revoked.

None gives more than the one that makes it has. The token in the state directory is not among them:
who can read that directory has it anyway.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, structs

from gateway.core.operators import Scope
from gateway.flow.operator_access import Access
from gateway.ports.operators import TokenRecord
from gateway.web.admin.problem import not_found
from gateway.web.admin.route import Asked, Asks, Gives, Route, Takes
from gateway.web.words import instant

_Name = Annotated[str, Meta(pattern="^[^\\x00-\\x1f\\x7f]{1,100}$", description="what it is for")]
_Scopes = Annotated[list[Scope], Meta(min_length=1, max_length=3)]


class TokenAsked(Asks, frozen=True, kw_only=True):
    """A token to be made."""

    name: _Name
    scopes: _Scopes


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A token as it is listed."""

    token_id: str
    name: str
    scopes: list[Scope]
    created_by: str
    created_at: str
    revoked_at: str | None


class TokenMade(Token, frozen=True, kw_only=True):
    """The same with the token itself, which is shown this once."""

    token: str


class TokenList(msgspec.Struct, frozen=True, kw_only=True):
    """All tokens that were made, newest first."""

    data: list[Token]


class Tokens:
    """The routes of tokens."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def routes(self) -> tuple[Route, ...]:
        """As they stand in the table."""
        return (
            Route(
                "POST /admin/v1/tokens", "write",
                "make a token of the admin API; it can do no more than yours, and is shown once",
                Gives(TokenMade, 201), self.create, Takes(body=TokenAsked),
            ),
            Route(
                "GET /admin/v1/tokens", "read", "tokens of the admin API, newest first",
                Gives(TokenList), self.tokens,
            ),
            Route(
                "DELETE /admin/v1/tokens/{token_id}", "write",
                "revoke a token of the admin API; its next request is refused",
                Gives(Token), self.revoke,
            ),
        )  # fmt: skip

    async def create(self, asked: Asked) -> TokenMade:
        """A new token."""
        token, record = await self._access.create(
            asked.body.name, asked.body.scopes, asked.operator
        )
        return TokenMade(**structs.asdict(_token(record)), token=token)

    async def tokens(self, _: Asked) -> TokenList:
        """All of them."""
        return TokenList(data=[_token(each) for each in await self._access.tokens()])

    async def revoke(self, asked: Asked) -> Token:
        """The token as it is now."""
        token_id = asked.path["token_id"]
        record = await self._access.revoke(token_id, asked.operator)
        if record is None:
            raise not_found(f"there is no token {token_id}: 'token list' shows their ids")
        return _token(record)


def _token(record: TokenRecord) -> Token:
    return Token(
        token_id=record.token_id,
        name=record.name,
        scopes=list(record.scopes),
        created_by=record.created_by,
        created_at=instant(record.created_ms),
        revoked_at=None if record.revoked_ms is None else instant(record.revoked_ms),
    )
