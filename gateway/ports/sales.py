"""Packs that were sold and taken back, kept in Postgres beside the ledger.

Granting a pack is `Directory.credit_pack`; here is what comes after it: lists, refunds, and taking
back what a refunded pack had paid. `LedgerUnavailable` means "try later", `Conflict` that the
change contradicts what is there. Refuses to know prices and payment providers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.core.identity import Identity


@dataclass(frozen=True, slots=True)
class SoldPack:
    """A pack as the ledger keeps it, in tokens and Unix milliseconds. What is left lags behind
    Redis by what is not drained yet. `live`: something is left, and the end is to come.

    `reclaimed_tokens` is what of `spent_tokens` was booked as an adjustment after a refund.
    """

    pack_id: str
    payer: str
    granted_tokens: int
    spent_tokens: int
    left_tokens: int
    ends_ms: int
    payment_ref: str
    created_ms: int
    live: bool
    refunded_ms: int | None = None
    reason: str | None = None
    reclaimed_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Refund:
    """A pack to be taken back: the one that was credited for `payment_ref`."""

    event_id: str
    payment_ref: str
    reason: str
    author: str


class Sales(Protocol):
    """What was sold. A change raises the payer's revision in the same transaction."""

    async def packs(self, payer: str) -> Sequence[SoldPack]:
        """All packs of a payer, the newest first."""
        ...

    async def pack_of(self, payment_ref: str) -> SoldPack | None: ...

    async def refund(self, refund: Refund) -> Identity:
        """Leave nothing of the pack, with its refund entry; the payer. A pack that is refunded
        already stays as it is. Conflict when nothing was credited for this payment."""
        ...

    async def reclaim(self, payment_ref: str, event_id: str) -> Identity | None:
        """Book what a refunded pack has paid, and was not booked yet, as an adjustment of the
        period that runs now; the payer, or None when there is nothing to book."""
        ...

    async def reclaimable(self, rows_max: int) -> Sequence[str]:
        """Payments whose refunded packs have something to be reclaimed: what was spent of them
        reaches the ledger after the refund, and corrections may come late."""
        ...
