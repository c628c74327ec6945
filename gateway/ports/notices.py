"""What people are to be told of, beside what the ledger books anyway, and what they want.

`LedgerUnavailable` means "try later": nothing was noted, or the same may be noted again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from gateway.core.notices import OperatorsKind

Wish: TypeAlias = tuple[str, str]
"""A kind of news, and a channel."""


@dataclass(frozen=True, slots=True)
class Exhaustion:
    """A call was refused because the quota of `user_id` (the payer, or a member of one) could not
    take it, at `at_ms` by the store's clock. `facts` are the figures of that moment."""

    user_id: str
    payer: str
    period_start_ms: int
    at_ms: int
    facts: Mapping[str, int | str]


@dataclass(frozen=True, slots=True)
class Alarm:
    """Operators are to know this. It is noted once for what it is `about`, since `since_ms`; None:
    once a day (UTC). `facts` are what its words are made of."""

    kind: OperatorsKind
    at_ms: int
    facts: Mapping[str, int | str]
    about: str = ""
    since_ms: int | None = None


class Alarms(Protocol):
    """Where news of operators is noted."""

    async def alarm(self, alarm: Alarm) -> None:
        """Note it, unless that is done already."""
        ...


class Exhaustions(Protocol):
    """Where it is noted that a quota is used up. Each exists once for each period and arming."""

    async def exhausted(self, told: Exhaustion) -> None:
        """Note it, unless that is done already."""
        ...


class Notices(Exhaustions, Protocol):
    """Where news is noted, and what people want to be told."""

    async def wishes(self, user_id: str) -> Mapping[Wish, bool]:
        """What the user has said it wants or not; all else is wanted."""
        ...

    async def wish(self, user_id: str, wishes: Mapping[Wish, bool]) -> None:
        """Note these and leave all others. `Rejected` (a ValueError): there is no such user."""
        ...
