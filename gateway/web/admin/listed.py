"""Lists of the admin API that change nothing: usage, entries of the ledger, the audit.

Every list is a page with a cursor. Amounts are tokens, money is pounds in text, instants are
RFC 3339 in UTC.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from gateway.ports.listings import (
    AuditAsked,
    AuditRow,
    EntryRow,
    Listings,
    UsageAsked,
    UsageBy,
    UsageRow,
    Whose,
)
from gateway.web.admin.paging import page_of, read_cursor
from gateway.web.admin.problem import not_found
from gateway.web.admin.route import (
    Asked,
    Gives,
    PageAsked,
    Route,
    Takes,
)
from gateway.web.words import instant, pounds

_Word = Annotated[str, Meta(pattern="^[!-~]{1,200}$")]
_UUID = Annotated[str, Meta(pattern="^[0-9a-f-]{36}$")]
_Ms = Annotated[int, Meta(ge=0, le=10**14)]
_Id = Annotated[int, Meta(ge=0, le=2**62)]


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """What was used in a period; `name` is the model or tag, '' where there is none."""

    period_start: str
    name: str
    calls: int
    prompt_tokens: int
    output_tokens: int
    charged_tokens: int
    adjusted_tokens: int
    cost_gbp: str


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the ledger, as docs/ledger.md describes it."""

    event_id: str
    period_start: str
    at: str
    kind: str
    payer: str
    user: str
    tier: str | None
    route: str | None
    model: str | None
    tag: str | None
    prompt_tokens: int
    output_tokens: int
    charged_tokens: int
    from_packs: int
    cost_gbp: str
    quality: str
    outcome: str
    reason: str | None
    author: str | None


class AuditLine(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what to whom (`user` is '' where it was to nobody), and what became of it."""

    id: int
    at: str
    who: str
    what: str
    user: str
    detail: dict[str, Any]


class UsedPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page; `next_cursor` is null on the last."""

    data: list[Used]
    next_cursor: str | None


class EntryPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page; `next_cursor` is null on the last."""

    data: list[Entry]
    next_cursor: str | None


class AuditPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page; `next_cursor` is null on the last."""

    data: list[AuditLine]
    next_cursor: str | None


class UsageQuery(PageAsked, frozen=True, kw_only=True):
    """What to add up by."""

    by: UsageBy = "period"


class AuditQuery(PageAsked, frozen=True, kw_only=True):
    """Only what was done to `user`, by `who`, or of the kind `what`."""

    user: _Word | None = None
    who: _Word | None = None
    what: _Word | None = None


class Lists:
    """The routes of these lists."""

    def __init__(self, listings: Listings) -> None:
        self._listings = listings

    def routes(self) -> tuple[Route, ...]:
        """As they stand in the table."""
        usage = "what a user, or a team, has used: by period, by model or by tag"
        return (
            Route(
                "GET /admin/v1/users/{user_id}/usage", "read", usage,
                Gives(UsedPage), self.usage, Takes(query=UsageQuery),
            ),
            Route(
                "GET /admin/v1/users/{user_id}/ledger", "read",
                "entries of the ledger of a user, or a team, newest first",
                Gives(EntryPage), self.entries, Takes(query=PageAsked),
            ),
            Route(
                "GET /admin/v1/audit", "read", "who changed what, newest first",
                Gives(AuditPage), self.audit, Takes(query=AuditQuery),
            ),
        )  # fmt: skip

    async def usage(self, asked: Asked) -> UsedPage:
        """A page of sums."""
        whose, query = await self._whose(asked), asked.query
        after = read_cursor(query.cursor, tuple[_Ms, Annotated[str, Meta(max_length=300)]])
        wanted = UsageAsked(query.limit + 1, query.by, after)
        rows, cursor = page_of(
            await self._listings.usage(whose, wanted),
            query.limit,
            lambda row: (row.period_ms, row.name),
        )
        return UsedPage(data=[_used(row) for row in rows], next_cursor=cursor)

    async def entries(self, asked: Asked) -> EntryPage:
        """A page of entries."""
        whose, query = await self._whose(asked), asked.query
        before = read_cursor(query.cursor, tuple[_UUID, _Ms])
        rows, cursor = page_of(
            await self._listings.entries(whose, query.limit + 1, before),
            query.limit,
            lambda row: (row.event_id, row.period_ms),
        )
        return EntryPage(data=[_entry(row) for row in rows], next_cursor=cursor)

    async def audit(self, asked: Asked) -> AuditPage:
        """A page of the audit."""
        query = asked.query
        before = read_cursor(query.cursor, _Id)
        wanted = AuditAsked(query.limit + 1, before, query.user, query.who, query.what)
        rows, cursor = page_of(
            await self._listings.audit(wanted), query.limit, lambda row: row.audit_id
        )
        return AuditPage(data=[_audit_line(row) for row in rows], next_cursor=cursor)

    async def _whose(self, asked: Asked) -> Whose:
        """A team's entries are those that it paid; a user's are its own, whoever paid them."""
        user_id = asked.path["user_id"]
        person = await self._listings.person(user_id)
        if person is None:
            raise not_found(f"there is no user '{user_id}'")
        if person.is_team:
            return Whose((user_id,), None)
        return Whose(tuple({user_id, person.payer}), user_id)


def _used(row: UsageRow) -> Used:
    return Used(
        period_start=instant(row.period_ms),
        name=row.name,
        calls=row.calls,
        prompt_tokens=row.prompt_tokens,
        output_tokens=row.output_tokens,
        charged_tokens=row.charged_tokens,
        adjusted_tokens=row.adjusted_tokens,
        cost_gbp=pounds(row.cost_nano_gbp),
    )


def _entry(row: EntryRow) -> Entry:
    return Entry(
        event_id=row.event_id,
        period_start=instant(row.period_ms),
        at=instant(row.at_ms),
        kind=row.kind,
        payer=row.payer,
        user=row.user_id,
        tier=row.tier,
        route=row.route,
        model=row.model,
        tag=row.tag,
        prompt_tokens=row.prompt_tokens,
        output_tokens=row.output_tokens,
        charged_tokens=row.charged_tokens,
        from_packs=row.from_packs,
        cost_gbp=pounds(row.cost_nano_gbp),
        quality=row.quality,
        outcome=row.outcome,
        reason=row.reason,
        author=row.author,
    )


def _audit_line(row: AuditRow) -> AuditLine:
    return AuditLine(
        id=row.audit_id,
        at=instant(row.at_ms),
        who=row.who,
        what=row.what,
        user=row.user_id,
        detail=row.detail,
    )
