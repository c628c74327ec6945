"""Who of the operators asks: tokens made, known, ended, and those who were refused.

A token is looked for in the ledger each time, so one that was revoked is refused at its next
request. Refusals are audited within a bound: whoever tries tokens in a flood fills no table.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
from collections.abc import Sequence

from gateway.core.identity import KEY_RANDOM_BYTES, key_digest
from gateway.core.operators import (
    SCOPES,
    STATE_TOKEN,
    Operator,
    Scope,
    format_token,
    looks_like_token,
    state_operator,
    token_operator,
)
from gateway.core.rid import make_rid
from gateway.ports.clock import Clock
from gateway.ports.ledger import Conflict, LedgerUnavailable
from gateway.ports.operators import NewToken, Note, Operators, TokenRecord
from gateway.ports.tasks import spawn

NOTED_MAX = 20
"""Refusals written to the audit one by one, in a window; the rest is counted in one line."""
_WINDOW_S = 60.0
_log = logging.getLogger("gateway.admin")


class BeyondScope(Conflict):
    """Somebody would give what they do not have."""


class Access:
    """Knows operators by their tokens. `state_token` is the one in the state directory."""

    def __init__(self, kept: Operators, clock: Clock, state_token: str, pepper: bytes) -> None:
        self._kept = kept
        self._clock = clock
        self._state_token = state_token.encode()
        self._pepper = pepper

    async def operator_of(self, token: str, login: str | None) -> Operator | None:
        """Whose token this is; None for one that is unknown or revoked, and for a user's key."""
        if hmac.compare_digest(token.encode("utf-8", "surrogateescape"), self._state_token):
            return state_operator(login)
        if not looks_like_token(token):
            return None
        found = await self._kept.token_of(key_digest(token, self._pepper))
        return None if found is None else token_operator(found.token_id, frozenset(found.scopes))

    async def create(
        self, name: str, scopes: Sequence[Scope], by: Operator
    ) -> tuple[str, TokenRecord]:
        """A new token, shown once, with what is kept of it. BeyondScope when it could do more
        than the one who makes it."""
        asked = tuple(scope for scope in SCOPES if scope in scopes)
        beyond = [scope for scope in asked if scope not in by.scopes]
        if beyond:
            raise BeyondScope(
                f"a token may give no more than it has: yours lacks {', '.join(beyond)}"
            )
        token = format_token(os.urandom(KEY_RANDOM_BYTES))
        token_id = make_rid(self._clock.now_ms(), os.urandom(10))
        digest = key_digest(token, self._pepper)
        return token, await self._kept.create_token(NewToken(token_id, name, digest, asked, by.who))

    async def tokens(self) -> Sequence[TokenRecord]:
        """All that were given out, newest first."""
        return await self._kept.tokens()

    async def revoke(self, token_id: str, by: Operator) -> TokenRecord | None:
        """End a token; None when there is no such."""
        return None if token_id == STATE_TOKEN else await self._kept.revoke_token(token_id, by.who)


class RefusalAudit:
    """Writes who was refused, at most NOTED_MAX a window, then how many more there were."""

    def __init__(self, kept: Operators, window_s: float = _WINDOW_S) -> None:
        self._kept = kept
        self._window_s = window_s
        self._noted = self._more = 0
        self._window: asyncio.Task[None] | None = None

    async def refused(self, who: str, detail: dict[str, str]) -> None:
        """One refusal. A ledger that is away refuses all the same: then the log has it."""
        if self._window is None:
            self._window = spawn(self._end_of_window(), "audit of refusals", awaited=True)
        if self._noted == NOTED_MAX:
            self._more += 1
            return
        self._noted += 1
        await self._write(Note(who, "refused", "", dict(detail)))

    async def close(self) -> None:
        """Write what was only counted so far."""
        if self._window is not None:
            self._window.cancel()
        await self._write_rest()

    async def _end_of_window(self) -> None:
        await asyncio.sleep(self._window_s)
        self._window = None
        await self._write_rest()

    async def _write_rest(self) -> None:
        more, self._noted, self._more = self._more, 0, 0
        if more:
            await self._write(Note("several", "refused_more", "", {"refusals": more}))

    async def _write(self, note: Note) -> None:
        try:
            await self._kept.note(note)
        except LedgerUnavailable as error:
            _log.warning("%s %s is not in the audit: %s", note.what, note.detail, error)
