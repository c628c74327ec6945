"""What is kept of operators: their tokens, their audit, and answers where money was made.

Tokens are known by their digests only. LedgerUnavailable means "try later", `Conflict` that what is
asked contradicts what is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.core.operators import Scope


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """A token that was given out. Instants are Unix milliseconds; `revoked_ms` None: it works."""

    token_id: str
    name: str
    scopes: tuple[Scope, ...]
    created_by: str
    created_ms: int
    revoked_ms: int | None


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token to be kept; `who` gives it out."""

    token_id: str
    name: str
    digest: bytes
    scopes: tuple[Scope, ...]
    who: str


@dataclass(frozen=True, slots=True)
class Note:
    """A line of the audit that no other change writes. `user_id` is '' where it is about none."""

    who: str
    what: str
    user_id: str
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class MoneyRequest:
    """A request that books: by whom and under which key of theirs, its content as a digest, and
    what is to be booked under `event_id`, settled before anything is done."""

    token_id: str
    key: str
    digest: bytes
    event_id: str
    intent: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Begun:
    """What is known of a key: the content, id and intent of its first request, and that one's
    answer (None: it has not been answered, or died before)."""

    digest: bytes
    event_id: str
    intent: dict[str, Any]
    answer: bytes | None


class Operators(Protocol):
    """Tokens, audit and answers."""

    async def token_of(self, digest: bytes) -> TokenRecord | None:
        """None for a token that is unknown or revoked."""
        ...

    async def create_token(self, token: NewToken) -> TokenRecord: ...

    async def tokens(self) -> Sequence[TokenRecord]:
        """All, those that were revoked too, newest first."""
        ...

    async def revoke_token(self, token_id: str, who: str) -> TokenRecord | None:
        """None when there is no such token. Revoking twice keeps the first time."""
        ...

    async def note(self, note: Note) -> None:
        """Add a line to the audit."""
        ...

    async def begun(self, token_id: str, key: str) -> Begun | None:
        """What is kept of a key; None for a new one."""
        ...

    async def begin(self, request: MoneyRequest) -> Begun:
        """Keep the request, if its key is new; what is kept of that key."""
        ...

    async def answered(self, token_id: str, key: str, answer: bytes) -> bytes:
        """Keep the answer, if none is kept yet; the one that is kept."""
        ...
