"""What a period's entries in the ledger say of one user, for a person who looks at it.

It may be away, or too slow for somebody who waits: HistoryUnavailable says why, and nothing else
depends on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class HistoryUnavailable(Exception):
    """The entries could not be read now; the text says why."""


@dataclass(frozen=True, slots=True)
class DayUse:
    """Tokens charged on one day of the user's zone, as YYYY-MM-DD."""

    day: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Charge:
    """One entry. `at_ms` is when it was booked."""

    event_id: str
    at_ms: int
    kind: str
    route: str
    model: str
    tag: str | None
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    charged_tokens: int
    cost_nano_gbp: int
    price_id: str | None
    quality: str
    outcome: str


@dataclass(frozen=True, slots=True)
class PeriodHistory:
    """The days on which something was charged, in their order, and the last charges, newest
    first."""

    days: Sequence[DayUse]
    charges: Sequence[Charge]


@dataclass(frozen=True, slots=True)
class HistoryAsk:
    """Whose entries: of a payer's period those of `user_id`, or all of them (None)."""

    payer: str
    user_id: str | None
    period_start_ms: int
    zone: str
    charges_max: int


class History(Protocol):
    """Reads entries; never writes."""

    async def of_period(self, ask: HistoryAsk) -> PeriodHistory: ...
