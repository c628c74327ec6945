"""What handlers of the admin API work with: the flow in an operator's name, and the views of it.

Each request changes things in the name of whoever sent it, so that name stands in the audit and in
the ledger. Knows neither stores nor HTTP.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.core.identity import valid_user_id
from gateway.core.operators import Operator
from gateway.core.period import zone_exists
from gateway.core.plan import Plan
from gateway.flow.accounts import Accounts
from gateway.flow.moving_in import MovingIn
from gateway.flow.people import People
from gateway.flow.topups import TopUps
from gateway.ports.clock import Clock
from gateway.ports.ledger import Unknown
from gateway.ports.listings import Listings, PersonRow
from gateway.web.admin.problem import invalid
from gateway.web.admin.views import UserView, user_view

_SHOWN_CHARS = 140


@dataclass(frozen=True, slots=True)
class Acting:
    """What an operator may do, each change under its own name."""

    accounts: Accounts
    people: People
    moving_in: MovingIn
    topups: TopUps


@dataclass(frozen=True, slots=True)
class Desk:
    """One for all handlers. `acting` gives the flow to whoever is named."""

    acting: Callable[[str], Acting]
    listings: Listings
    plan: Plan
    clock: Clock

    def of(self, operator: Operator) -> Acting:
        """The flow in this operator's name."""
        return self.acting(operator.who)

    async def person(self, user_id: str) -> PersonRow:
        """A user or team that is not deleted; Unknown."""
        person = await self.listings.person(user_id)
        if person is None or person.state == "disabled":
            raise Unknown(f"there is no user '{user_id}'")
        return person

    async def view(self, user_id: str, operator: Operator) -> UserView:
        """A user at this moment; Unknown."""
        person = await self.person(user_id)
        identity, snapshot = await self.of(operator).accounts.show(user_id)
        return user_view(person, identity, snapshot, self.plan, self.clock.now_ms())

    def check_tier(self, tier: str) -> str:
        """The tier, which the plan must have."""
        if tier not in self.plan.tiers:
            offered = ", ".join(self.plan.tiers)
            raise invalid(f"tier '{tier}' is not in the plan: expected one of {offered}", "tier")
        return tier


def checked_zone(zone: str) -> str:
    """The zone, which must be one."""
    if not zone_exists(zone):
        raise invalid(
            f"time zone '{zone}': expected a name of the IANA database, such as Europe/London",
            "zone",
        )
    return zone


def checked_id(user_id: str, what: str) -> None:
    """The id of a new user or team."""
    if not valid_user_id(user_id):
        raise invalid(
            f"{what} id '{user_id[:_SHOWN_CHARS]}': expected 1 to 128 letters, digits and ._:@+-, "
            "the first a letter or digit",
            what,
        )
