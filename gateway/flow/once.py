"""Requests that make money: each is done once, however often it is asked for under its key.

What will be booked, and under which id, is settled and kept before anything is booked. So whoever
repeats a request whose answer was lost, even by a crash, books the same thing under the same id,
which the ledger knows to change nothing; and gets the first answer from then on.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from gateway.core.rid import make_rid
from gateway.ports.clock import Clock
from gateway.ports.ledger import Conflict
from gateway.ports.operators import MoneyRequest, Operators

Intent: TypeAlias = dict[str, Any]
Settle: TypeAlias = Callable[[], Awaitable[Intent]]
Book: TypeAlias = Callable[[str, Intent], Awaitable[bytes]]
"""Books an intent under an event id; the answer. It may be asked for again with the same."""


class OtherContent(Conflict):
    """The key was used for another request."""


class Once:
    """Of one process; the keys are kept in the ledger, so all processes share them."""

    def __init__(self, kept: Operators, clock: Clock) -> None:
        self._kept = kept
        self._clock = clock

    async def answer(
        self, asked_by: tuple[str, str], digest: bytes, settle: Settle, book: Book
    ) -> bytes:
        """The answer to what (token id, key) asks for, whose content has this digest.

        OtherContent when it was another content before. Two at once book the same, once.
        """
        token_id, key = asked_by
        begun = await self._kept.begun(token_id, key)
        if begun is None:
            event_id = make_rid(self._clock.now_ms(), os.urandom(10))
            request = MoneyRequest(token_id, key, digest, event_id, await settle())
            begun = await self._kept.begin(request)
        if begun.digest != digest:
            raise OtherContent(
                f"the idempotency key {key!r} was used for another request: take a new key for "
                "new content"
            )
        if begun.answer is not None:
            return begun.answer
        answer = await book(begun.event_id, begun.intent)
        return await self._kept.answered(token_id, key, answer)
