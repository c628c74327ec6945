"""What operators look through: people, keys, the audit and the ledger, page by page.

A page is asked for by how many rows it may have and by the row after which it begins, so that what
is added meanwhile shifts nothing. LedgerUnavailable means "try later". Nothing is changed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

UsageBy: TypeAlias = Literal["period", "model", "tag"]


@dataclass(frozen=True, slots=True)
class PersonRow:
    """A user or a team. `state` is active, blocked or disabled; instants are Unix milliseconds."""

    user_id: str
    payer: str
    tier: str
    email: str | None
    is_team: bool
    state: str
    block_reason: str | None
    zone: str
    limits_json: str
    created_ms: int


@dataclass(frozen=True, slots=True)
class PeopleAsked:
    """Which people: ids that begin with `prefix`, teams or users, members of `team`."""

    rows_max: int
    after: str = ""
    prefix: str = ""
    is_team: bool = False
    team: str | None = None


@dataclass(frozen=True, slots=True)
class KeyRow:
    """An API key of a user, or of a service; `revoked_ms` None: it works."""

    key_id: str
    user_id: str
    is_service: bool
    created_ms: int
    revoked_ms: int | None


@dataclass(frozen=True, slots=True)
class AuditRow:
    """A line of the audit."""

    audit_id: int
    at_ms: int
    who: str
    what: str
    user_id: str
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AuditAsked:
    """Which lines, newest first: before the line `before`; None: of all."""

    rows_max: int
    before: int | None = None
    user_id: str | None = None
    who: str | None = None
    what: str | None = None


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose entries: those that `payers` paid, and of these the ones of one user, if any."""

    payers: Sequence[str]
    user_id: str | None


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What was used in a period, by one model or tag if so asked ('' : without). `adjusted_tokens`
    is what people changed; calls are counted with their corrections."""

    period_ms: int
    name: str
    calls: int
    prompt_tokens: int
    output_tokens: int
    charged_tokens: int
    adjusted_tokens: int
    cost_nano_gbp: int


@dataclass(frozen=True, slots=True)
class UsageAsked:
    """Newest period first, names in their order: after the row (period, name)."""

    rows_max: int
    by: UsageBy
    after: tuple[int, str] | None = None


@dataclass(frozen=True, slots=True)
class EntryRow:
    """An entry of the ledger."""

    event_id: str
    period_ms: int
    at_ms: int
    kind: str
    payer: str
    user_id: str
    tier: str | None
    route: str | None
    model: str | None
    tag: str | None
    prompt_tokens: int
    output_tokens: int
    charged_tokens: int
    from_packs: int
    cost_nano_gbp: int
    quality: str
    outcome: str
    reason: str | None
    author: str | None


class Listings(Protocol):
    """Pages, each read by one statement."""

    async def person(self, user_id: str) -> PersonRow | None:
        """A user or team, also one that is disabled."""
        ...

    async def persons(self, user_ids: Sequence[str]) -> Sequence[PersonRow]:
        """Those of these ids that are there."""
        ...

    async def booked_tokens(self, event_ids: Sequence[str]) -> dict[str, int]:
        """What is charged by those of these entries that are in the ledger."""
        ...

    async def people(self, asked: PeopleAsked) -> Sequence[PersonRow]:
        """In the order of their ids."""
        ...

    async def keys(self, user_id: str) -> Sequence[KeyRow]:
        """Newest first, the thousand newest."""
        ...

    async def audit(self, asked: AuditAsked) -> Sequence[AuditRow]: ...

    async def usage(self, whose: Whose, asked: UsageAsked) -> Sequence[UsageRow]: ...

    async def entries(
        self, whose: Whose, rows_max: int, before: tuple[str, int] | None
    ) -> Sequence[EntryRow]:
        """Newest first; before the entry (event id, period), if one is given."""
        ...
