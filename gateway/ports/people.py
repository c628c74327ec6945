"""Changes to who people are: kept beside the ledger, made by operators, asked for by no call.

Each raises the revisions that it concerns, in one transaction with its audit row;
`LedgerUnavailable` means "try later", `Conflict` that it contradicts what is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from gateway.core.identity import Identity
from gateway.core.overrides import Overrides
from gateway.core.period import Calendar
from gateway.ports.directory import Directory

UserState = Literal["active", "blocked", "disabled"]
"""Blocked: calls are refused, and the caller is told. Disabled: its keys are like unknown ones."""


@dataclass(frozen=True, slots=True)
class MovedIn:
    """A user who comes with what it has used elsewhere: `used_tokens` of the period that begins at
    `period_start_ms`, booked under `event_id` (0: nothing is)."""

    user_id: str
    tier: str
    email: str | None
    zone: str
    used_tokens: int
    event_id: str
    period_start_ms: int


class PeopleDirectory(Directory, Protocol):
    """The directory, as those see it who run the gateway."""

    async def set_email(self, user_id: str, email: str | None) -> Identity:
        """Conflict when there is no such user."""
        ...

    async def set_limits(self, user_id: str, limits: Overrides) -> Identity:
        """All limits that the user has of its own. Conflict when there is no such user."""
        ...

    async def set_state(self, user_id: str, state: UserState, reason: str | None) -> Identity:
        """Conflict when there is no such user. `reason` is for operators."""
        ...

    async def create_team(self, team_id: str, tier: str, calendar: Calendar) -> Identity:
        """Conflict when the team, or a user of that name, exists."""
        ...

    async def join_team(self, user_id: str, team_id: str) -> Identity:
        """From now on the team is charged for what the user calls. Joining again changes nothing
        but the revision. Conflict when there is no such user or team, or another team has it."""
        ...

    async def leave_team(self, user_id: str, team_id: str) -> Identity:
        """From now on the user pays for itself. Conflict when it is not in that team."""
        ...

    async def take_in(
        self, newcomers: Sequence[MovedIn], billing_day: int, reason: str
    ) -> set[str]:
        """Make these users, each with its adjustment; the ids of those who were made. Who is there
        already stays as they are. All or nothing of it; Conflict when a value is refused."""
        ...

    async def members(self, team_id: str) -> Sequence[Identity]: ...
