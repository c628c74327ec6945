"""Corrections that a person books: what Redis has counted and the ledger never got.

A ledger that came back from a backup, or could not book an event, lacks it for good; an adjustment
would not help, because it is told to Redis too. `LedgerUnavailable` means "try later".
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from gateway.core.event import PackSplit


@dataclass(frozen=True, slots=True)
class HandCorrection:
    """An entry for the account of `payer` in its period: tokens, of these paid by packs, and cost.

    `event_id` makes it unique; `reason` and `author` stand in the entry and in the audit.
    """

    event_id: str
    payer: str
    tier: str
    period_start_ms: int
    charged_tokens: int
    cost_nano_gbp: int
    pack_split: PackSplit
    reason: str
    author: str


class Corrections(Protocol):
    """Books them, and sees to it that accounts are repaired by one at a time."""

    async def book(self, correction: HandCorrection) -> None:
        """The entry, the sums that follow from it and a line of the audit, all or nothing. The
        same `event_id` again changes nothing."""
        ...

    def alone(self) -> AbstractAsyncContextManager[None]:
        """While the block lasts nobody else is in theirs; Conflict while somebody is. Two that see
        the same difference would both take it out."""
        ...
