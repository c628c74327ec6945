"""Users' API keys: made and shown once, listed, revoked.

What is listed opens nothing: a key itself is stored nowhere. A revoked key is refused at its very
next call.
"""

from __future__ import annotations

import msgspec

from gateway.web.admin.desk import Desk
from gateway.web.admin.route import Asked, Asks, Gives, Route, Takes
from gateway.web.words import instant


class KeyAsked(Asks, frozen=True, kw_only=True):
    """What kind of key: a service's reports usage for any user, and makes no calls."""

    service: bool = False


class KeyMade(msgspec.Struct, frozen=True, kw_only=True):
    """A new key, which is shown this once."""

    user: str
    key_id: str
    key: str
    service: bool


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it is listed."""

    key_id: str
    user: str
    service: bool
    created_at: str
    revoked_at: str | None


class KeyList(msgspec.Struct, frozen=True, kw_only=True):
    """Keys of a user, newest first."""

    data: list[Key]


class KeyRevoked(msgspec.Struct, frozen=True, kw_only=True):
    """A key that has ended."""

    key_id: str
    user: str
    revoked: bool


class Keys:
    """The routes of keys. `pepper` goes into their digests."""

    def __init__(self, desk: Desk, pepper: bytes) -> None:
        self._desk = desk
        self._pepper = pepper

    def routes(self) -> tuple[Route, ...]:
        """As they stand in the table."""
        of_user = "/admin/v1/users/{user_id}/keys"
        return (
            Route(
                f"POST {of_user}", "write", "make a key for a user; shown once",
                Gives(KeyMade, 201), self.create, Takes(query=KeyAsked),
            ),
            Route(
                f"GET {of_user}", "read", "a user's keys, newest first", Gives(KeyList), self.list
            ),
            Route(
                "DELETE /admin/v1/keys/{key_id}", "write",
                "revoke a key; its next call is refused", Gives(KeyRevoked), self.revoke,
            ),
        )  # fmt: skip

    async def create(self, asked: Asked) -> KeyMade:
        """A new key."""
        user_id, is_service = asked.path["user_id"], asked.query.service
        await self._desk.person(user_id)
        accounts = self._desk.of(asked.operator).accounts
        made = await accounts.create_key(user_id, self._pepper, is_service)
        return KeyMade(user=user_id, key_id=made.key_id, key=made.key, service=is_service)

    async def list(self, asked: Asked) -> KeyList:
        """All keys of a user."""
        await self._desk.person(asked.path["user_id"])
        rows = await self._desk.listings.keys(asked.path["user_id"])
        return KeyList(
            data=[
                Key(
                    key_id=row.key_id,
                    user=row.user_id,
                    service=row.is_service,
                    created_at=instant(row.created_ms),
                    revoked_at=None if row.revoked_ms is None else instant(row.revoked_ms),
                )
                for row in rows
            ]
        )

    async def revoke(self, asked: Asked) -> KeyRevoked:
        """Whose key has ended."""
        key_id = asked.path["key_id"]
        identity = await self._desk.of(asked.operator).accounts.revoke_key(key_id)
        return KeyRevoked(key_id=key_id, user=identity.user_id, revoked=True)
