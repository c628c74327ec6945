"""Users: made, looked at, changed, blocked and deleted by operators.

A change answers after it was projected, so it binds at the user's very next call; what is used
stays used. The answer says what the change does to the running period. Teams are changed here too:
their ids stand in the same place.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from gateway.core.identity import USER_ID_PATTERN
from gateway.core.overrides import Overrides
from gateway.core.period import ANCHOR_DAY_MAX, Calendar
from gateway.ports.listings import PeopleAsked
from gateway.web.admin.desk import Desk, checked_id, checked_zone
from gateway.web.admin.paging import page_of, read_cursor
from gateway.web.admin.route import (
    Asked,
    Asks,
    Gives,
    PageAsked,
    Route,
    Takes,
)
from gateway.web.admin.views import Change, Person, UserView, changed, person_view

# Its pattern is described, and checked where the refusal can say it in words.
UserId = Annotated[
    str, Meta(max_length=1000, extra_json_schema={"pattern": f"^{USER_ID_PATTERN.pattern}$"})
]
Words = Annotated[str, Meta(pattern="^[^\\x00]{1,500}$", description="up to 500 characters")]
_Prefix = Annotated[str, Meta(pattern="^[!-~]{1,128}$", description="how ids begin")]
After = Annotated[str, Meta(pattern="^[!-~]{1,128}$")]
Name = Annotated[str, Meta(pattern="^[^\\x00]{1,100}$")]
_Email = Annotated[str, Meta(pattern="^[^\\x00-\\x20\\x7f]{3,320}$")]
_Day = Annotated[int, Meta(ge=1, le=ANCHOR_DAY_MAX, description="day on which periods begin")]


class UserAsked(Asks, frozen=True, kw_only=True):
    """A new user. What is left out is the plan's."""

    user: UserId
    tier: Name | None = None
    email: _Email | None = None
    billing_day: _Day | None = None
    zone: Name | None = None


class TierAsked(Asks, frozen=True, kw_only=True):
    """A tier of the plan."""

    tier: Name


class EmailAsked(Asks, frozen=True, kw_only=True):
    """Where the user is written to; null: nowhere."""

    email: _Email | None


class PeriodAsked(Asks, frozen=True, kw_only=True):
    """When periods begin: on this day, at midnight in this IANA zone."""

    billing_day: _Day
    zone: Name


class BlockAsked(Asks, frozen=True, kw_only=True):
    """Why, for operators; the user is not told."""

    reason: Words


class PeopleQuery(PageAsked, frozen=True, kw_only=True):
    """Only ids that begin so."""

    prefix: _Prefix = ""


class PersonPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page; `next_cursor` is null on the last."""

    data: list[Person]
    next_cursor: str | None


class Users:
    """The routes of users."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> tuple[Route, ...]:
        """As they stand in the table."""
        user = "/admin/v1/users/{user_id}"

        def change(at: str, says: str, handle: Any, body: Any = None) -> Route:
            return Route(at, "write", says, Gives(Change), handle, Takes(body=body))

        return (
            Route(
                "POST /admin/v1/users", "write", "make a user",
                Gives(UserView, 201), self.create, Takes(body=UserAsked),
            ),
            Route(
                "GET /admin/v1/users", "read", "users in the order of their ids",
                Gives(PersonPage), self.page, Takes(query=PeopleQuery),
            ),
            Route(f"GET {user}", "read", "a user at this moment", Gives(UserView), self.show),
            Route(
                f"DELETE {user}", "write",
                "delete a user: its keys stop working, its entries stay; 'unblock' brings it back",
                Gives(Person), self.delete,
            ),
            change(f"PUT {user}/tier", "move a user to another tier", self.set_tier, TierAsked),
            change(f"PUT {user}/email", "set a user's address", self.set_email, EmailAsked),
            change(
                f"PUT {user}/period", "begin periods on another day, from the next one on",
                self.set_period, PeriodAsked,
            ),
            change(
                f"PUT {user}/limits",
                "all limits that a user has instead of its tier's; {} takes them away",
                self.set_limits, Overrides,
            ),
            change(f"POST {user}/block", "refuse a user's calls", self.block, BlockAsked),
            change(f"POST {user}/unblock", "let a user call again", self.unblock),
        )  # fmt: skip

    async def create(self, asked: Asked) -> UserView:
        """A new user with its quota."""
        body, plan = asked.body, self._desk.plan
        checked_id(body.user, "user")
        tier = self._desk.check_tier(body.tier or plan.default_tier)
        calendar = Calendar(
            body.billing_day or plan.anchor_day, checked_zone(body.zone or plan.zone)
        )
        acting = self._desk.of(asked.operator)
        await acting.accounts.create_user(body.user, tier, body.email, calendar)
        return await self._desk.view(body.user, asked.operator)

    async def page(self, asked: Asked) -> PersonPage:
        """A page of users."""
        query = asked.query
        after = read_cursor(query.cursor, After) or ""
        wanted = PeopleAsked(query.limit + 1, after, query.prefix)
        rows, cursor = page_of(
            await self._desk.listings.people(wanted), query.limit, lambda row: row.user_id
        )
        return PersonPage(
            data=[person_view(row) for row in rows],
            next_cursor=cursor,
        )

    async def show(self, asked: Asked) -> UserView:
        """One user."""
        return await self._desk.view(asked.path["user_id"], asked.operator)

    async def delete(self, asked: Asked) -> Person:
        """The user as it is listed from now on."""
        user_id = asked.path["user_id"]
        await self._desk.person(user_id)
        await self._desk.of(asked.operator).people.set_state(user_id, "disabled", None)
        person = await self._desk.listings.person(user_id)
        assert person is not None  # rows of users are never removed
        return person_view(person)

    async def set_tier(self, asked: Asked) -> Change:
        """The user after the change."""
        tier = self._desk.check_tier(asked.body.tier)
        accounts = self._desk.of(asked.operator).accounts
        return await self._changed(asked, lambda user_id: accounts.set_tier(user_id, tier))

    async def set_email(self, asked: Asked) -> Change:
        """The user after the change."""
        people, email = self._desk.of(asked.operator).people, asked.body.email
        now = f"Mails go to {email}." if email else "No mails go to this user."
        return await self._changed(asked, lambda user_id: people.set_email(user_id, email), now)

    async def set_period(self, asked: Asked) -> Change:
        """The user after the change."""
        day, zone = asked.body.billing_day, checked_zone(asked.body.zone)
        accounts = self._desk.of(asked.operator).accounts
        return await self._changed(
            asked,
            lambda user_id: accounts.set_calendar(user_id, day, zone),
            f"The running period stays as it is; the ones after it begin on day {day} in {zone}.",
        )

    async def set_limits(self, asked: Asked) -> Change:
        """The user after the change."""
        people = self._desk.of(asked.operator).people
        return await self._changed(asked, lambda user_id: people.set_limits(user_id, asked.body))

    async def block(self, asked: Asked) -> Change:
        """The user after the change."""
        people, reason = self._desk.of(asked.operator).people, asked.body.reason
        return await self._changed(
            asked,
            lambda user_id: people.set_state(user_id, "blocked", reason),
            "From the next call on this user is refused; calls that run end as they would have.",
        )

    async def unblock(self, asked: Asked) -> Change:
        """The user after the change; one that was deleted is there again."""
        user_id, operator = asked.path["user_id"], asked.operator
        await self._desk.of(operator).people.set_state(user_id, "active", None)
        view = await self._desk.view(user_id, operator)
        return changed(view, view, "From the next call on this user is let through again.")

    async def _changed(
        self, asked: Asked, change: Callable[[str], Awaitable[object]], now: str = ""
    ) -> Change:
        user_id = asked.path["user_id"]
        before = await self._desk.view(user_id, asked.operator)
        await change(user_id)
        return changed(before, await self._desk.view(user_id, asked.operator), now)
