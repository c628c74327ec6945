"""Teams: several users who spend from one allowance.

A team is made here and its members join and leave here; its tier, limits, period and packs are
changed where a user's are, under the team's id. Joining and leaving bind at the very next call.
"""

from __future__ import annotations

import msgspec

from gateway.ports.ledger import Unknown
from gateway.ports.listings import PeopleAsked
from gateway.web.admin.desk import Desk, checked_id
from gateway.web.admin.paging import page_of, read_cursor
from gateway.web.admin.route import (
    Asked,
    Asks,
    Gives,
    PageAsked,
    Route,
    Takes,
)
from gateway.web.admin.users import After, Name, PeopleQuery, PersonPage, UserId
from gateway.web.admin.views import UserView, person_view


class TeamAsked(Asks, frozen=True, kw_only=True):
    """A new team; without a tier on the plan's."""

    team: UserId
    tier: Name | None = None


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """Whose allowance a user spends from its next call on: a team's, or its own (null)."""

    user: str
    team: str | None
    now: str


class Teams:
    """The routes of teams."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> tuple[Route, ...]:
        """As they stand in the table."""
        members = "/admin/v1/teams/{team_id}/members"
        return (
            Route(
                "POST /admin/v1/teams", "write", "make a team",
                Gives(UserView, 201), self.create, Takes(body=TeamAsked),
            ),
            Route(
                "GET /admin/v1/teams", "read", "teams in the order of their ids",
                Gives(PersonPage), self.page, Takes(query=PeopleQuery),
            ),
            Route(
                f"GET {members}", "read", "a team's members in the order of their ids",
                Gives(PersonPage), self.members, Takes(query=PageAsked),
            ),
            Route(
                f"PUT {members}/{{user_id}}", "write", "let a user spend what the team has",
                Gives(Membership), self.join,
            ),
            Route(
                f"DELETE {members}/{{user_id}}", "write", "let a member pay for itself again",
                Gives(Membership), self.leave,
            ),
        )  # fmt: skip

    async def create(self, asked: Asked) -> UserView:
        """A new team with its quota."""
        checked_id(asked.body.team, "team")
        tier = self._desk.check_tier(asked.body.tier or self._desk.plan.default_tier)
        await self._desk.of(asked.operator).people.create_team(asked.body.team, tier)
        return await self._desk.view(asked.body.team, asked.operator)

    async def page(self, asked: Asked) -> PersonPage:
        """A page of teams."""
        query = asked.query
        after = read_cursor(query.cursor, After) or ""
        return await self._page(
            PeopleAsked(query.limit + 1, after, query.prefix, is_team=True), query.limit
        )

    async def members(self, asked: Asked) -> PersonPage:
        """A page of a team's members."""
        query, team_id = asked.query, asked.path["team_id"]
        await self._team(team_id)
        after = read_cursor(query.cursor, After) or ""
        return await self._page(PeopleAsked(query.limit + 1, after, team=team_id), query.limit)

    async def join(self, asked: Asked) -> Membership:
        """Whose the user is now."""
        user_id, team_id = asked.path["user_id"], asked.path["team_id"]
        await self._team(team_id)
        await self._desk.person(user_id)
        await self._desk.of(asked.operator).people.join_team(user_id, team_id)
        now = (
            f"From the next call on '{user_id}' spends what the team '{team_id}' has; what is left "
            "of its own allowance and packs waits for the day it leaves."
        )
        return Membership(user=user_id, team=team_id, now=now)

    async def leave(self, asked: Asked) -> Membership:
        """Whose the user is now."""
        user_id, team_id = asked.path["user_id"], asked.path["team_id"]
        await self._team(team_id)
        await self._desk.person(user_id)
        await self._desk.of(asked.operator).people.leave_team(user_id, team_id)
        now = f"From the next call on '{user_id}' spends its own allowance and packs again."
        return Membership(user=user_id, team=None, now=now)

    async def _team(self, team_id: str) -> None:
        person = await self._desk.listings.person(team_id)
        if person is None or not person.is_team or person.state == "disabled":
            raise Unknown(f"there is no team '{team_id}'")

    async def _page(self, asked: PeopleAsked, limit: int) -> PersonPage:
        rows, cursor = page_of(
            await self._desk.listings.people(asked), limit, lambda row: row.user_id
        )
        return PersonPage(
            data=[person_view(row) for row in rows],
            next_cursor=cursor,
        )
