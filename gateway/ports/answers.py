"""Answers that are kept for a while, so that a repeated call need not be paid twice.

Nothing here is money: what is lost makes a repetition a new call. But while a call runs its key is
taken, and of two that come at the same time exactly one begins, wherever they come.
"""

from __future__ import annotations

from typing import Protocol

from gateway.core.idempotency import Remembered


class KeptAnswers(Protocol):
    """One entry for each user's key. All may raise StoreUnavailable and StoreRejected; each may be
    repeated."""

    async def begin(self, running: Remembered, lives_ms: int) -> Remembered | None:
        """Take the key for this call; if it is taken, what stands there, else None."""
        ...

    async def keep(self, running: Remembered, now: Remembered, lives_ms: int) -> bool:
        """Put `now` where `running` is; the same again renews it. False when another call has the
        key, or when there is nothing to renew."""
        ...

    async def forget(self, running: Remembered) -> bool:
        """The key is free again; False when another call has it."""
        ...
