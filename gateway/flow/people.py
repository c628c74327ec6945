"""Changing who people are to the gateway: teams, states, addresses, limits of their own.

Each change is in the ledger's database first, with its audit row, then in Redis, so it binds at the
very next call. Used by the command line and the admin API. It refuses to know what is used.
"""

from __future__ import annotations

from msgspec import UNSET

from gateway.core.identity import Identity, valid_email, valid_user_id
from gateway.core.overrides import Overrides
from gateway.core.period import Calendar
from gateway.core.plan import Plan
from gateway.flow.accounts import project
from gateway.ports.clock import Clock
from gateway.ports.ledger import Conflict
from gateway.ports.people import PeopleDirectory, UserState
from gateway.ports.quota_store import QuotaStore

_REASON_CHARS_MAX = 500


class People:
    """What an operator does to people. Conflict: the change contradicts what is there."""

    def __init__(
        self, directory: PeopleDirectory, store: QuotaStore, plan: Plan, clock: Clock
    ) -> None:
        self._directory = directory
        self._store = store
        self._plan = plan
        self._clock = clock

    async def set_email(self, user_id: str, email: str | None) -> Identity:
        """Where a user is written to; None: nowhere."""
        if email is not None and not valid_email(email):
            raise Conflict(f"e-mail address {email!r}: expected one like name@example.org")
        return await self._directory.set_email(user_id, email)

    async def set_limits(self, user_id: str, limits: Overrides) -> Identity:
        """All that a user has instead of its tier's limits; NO_OVERRIDES: nothing."""
        known = await self._directory.identity_of_user(user_id)
        if known is not None and known.member is not None and limits.gbp is not UNSET:
            raise Conflict(
                f"{user_id} is a member of {known.payer}, whose budget in pounds is one for all: "
                "set gbp there"
            )
        return await self._told(await self._directory.set_limits(user_id, limits))

    async def set_state(self, user_id: str, state: UserState, reason: str | None) -> Identity:
        """Block a user, disable it, or let it call again; of a team, all its members."""
        if reason is not None and len(reason) > _REASON_CHARS_MAX:
            raise Conflict(f"reason: expected at most {_REASON_CHARS_MAX} characters")
        return await self._told(await self._directory.set_state(user_id, state, reason))

    async def create_team(self, team_id: str, tier: str) -> Identity:
        """A new team on a tier of the plan, with the plan's period and nobody in it."""
        if not valid_user_id(team_id):
            raise Conflict(
                f"team id {team_id!r}: expected 1 to 128 letters, digits and ._:@+-, "
                "the first a letter or digit"
            )
        if tier not in self._plan.tiers:
            offered = ", ".join(self._plan.tiers)
            raise Conflict(f"tier {tier!r} is not in the plan: expected one of {offered}")
        calendar = Calendar(self._plan.anchor_day, self._plan.zone)
        return await self._directory.create_team(team_id, tier, calendar)

    async def join_team(self, user_id: str, team_id: str) -> Identity:
        """From its next call on the user spends what the team has."""
        return await self._told(await self._directory.join_team(user_id, team_id))

    async def leave_team(self, user_id: str, team_id: str) -> Identity:
        """From its next call on the user pays for itself again."""
        left = await self._directory.leave_team(user_id, team_id)
        team = await self._directory.as_payer(team_id)
        if team is not None:
            await self._told(team)
        return await self._told(left)

    async def _told(self, identity: Identity) -> Identity:
        await project(identity, self._directory, self._store, self._clock)
        return identity
