"""People who come from elsewhere: users made with what they have used there.

It may be asked what would happen first. Whoever is there already stays as they are, and what was
used elsewhere is booked as an adjustment under an id made from the user's: so the same list again
changes nothing, also after it was cut off half way.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gateway.core.identity import valid_email, valid_user_id
from gateway.core.period import Calendar, zone_exists
from gateway.core.plan import Plan
from gateway.flow.accounts import project
from gateway.ports.clock import Clock
from gateway.ports.directory import Adjustment
from gateway.ports.listings import Listings, PersonRow
from gateway.ports.people import MovedIn, PeopleDirectory
from gateway.ports.quota_store import QuotaStore

REASON = "used before moving in"


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A user as another system knows it. What is None is the plan's."""

    user_id: str
    tier: str | None
    email: str | None
    zone: str | None
    used_tokens: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """What happens to a newcomer. `books_tokens` is what is booked as used now; `notes` say what
    is left as it is, or why the newcomer is refused."""

    user_id: str
    outcome: Literal["create", "exists", "refused"]
    books_tokens: int
    notes: tuple[str, ...] = ()


class MovingIn:
    """Of one operator. Whoever cannot come is refused, one by one; Conflict is left to races."""

    def __init__(
        self,
        directory: PeopleDirectory,
        listings: Listings,
        store: QuotaStore,
        plan: Plan,
        clock: Clock,
    ) -> None:
        self._directory = directory
        self._listings = listings
        self._store = store
        self._plan = plan
        self._clock = clock

    async def foreseen(self, newcomers: Sequence[Newcomer]) -> list[Arrival]:
        """What would happen, in their order; nothing is changed."""
        people = {
            row.user_id: row
            for row in await self._listings.persons(
                [each.user_id for each in newcomers if valid_user_id(each.user_id)]
            )
        }
        booked = await self._listings.booked_tokens(
            [_event_id(each.user_id) for each in newcomers if each.used_tokens]
        )
        return [
            self._arrival(each, people.get(each.user_id), booked.get(_event_id(each.user_id)))
            for each in newcomers
        ]

    async def arrive(self, newcomers: Sequence[Newcomer], author: str) -> list[Arrival]:
        """Do it; what has happened, in their order."""
        foreseen = await self.foreseen(newcomers)
        made = await self._make(
            [
                newcomer
                for newcomer, arrival in zip(newcomers, foreseen, strict=True)
                if arrival.outcome == "create"
            ]
        )
        arrivals = []
        for newcomer, arrival in zip(newcomers, foreseen, strict=True):
            if arrival.outcome == "create" and newcomer.user_id not in made:
                note = "somebody else has made this user meanwhile: import the file again"
                arrival = Arrival(newcomer.user_id, "refused", 0, (note,))
            elif arrival.outcome == "exists" and arrival.books_tokens:
                arrival = await self._book(newcomer, arrival, author)
            arrivals.append(arrival)
        return arrivals

    async def _make(self, newcomers: Sequence[Newcomer]) -> set[str]:
        """Who was made. Redis has no account of them, which is read from the ledger at their first
        call, unless they were known by a token before this was done: then it is told."""
        if not newcomers:
            return set()
        plan, now_ms = self._plan, self._clock.now_ms()
        zones = [each.zone or plan.zone for each in newcomers]
        made = await self._directory.take_in(
            [
                MovedIn(
                    user_id=each.user_id,
                    tier=each.tier or plan.default_tier,
                    email=each.email,
                    zone=zone,
                    used_tokens=each.used_tokens,
                    event_id=_event_id(each.user_id),
                    period_start_ms=Calendar(plan.anchor_day, zone).period_at(now_ms).start_ms,
                )
                for each, zone in zip(newcomers, zones, strict=True)
            ],
            plan.anchor_day,
            REASON,
        )
        for user_id in made:
            if await self._store.snapshot(user_id) is not None:
                await self._tell(user_id)
        return made

    async def _tell(self, user_id: str) -> None:
        identity = await self._directory.identity_of_user(user_id)
        if identity is not None:
            await project(identity, self._directory, self._store, self._clock)

    async def _book(self, newcomer: Newcomer, arrival: Arrival, author: str) -> Arrival:
        """Of somebody who is there."""
        owner = await self._directory.identity_of_user(newcomer.user_id)
        if owner is None:
            return Arrival(newcomer.user_id, "refused", 0, ("the user was deleted",))
        adjusted = await self._directory.adjust(
            Adjustment(
                event_id=_event_id(newcomer.user_id),
                user_id=newcomer.user_id,
                period_start_ms=owner.calendar.period_at(self._clock.now_ms()).start_ms,
                tokens=newcomer.used_tokens,
                reason=REASON,
                author=author,
            )
        )
        await project(adjusted, self._directory, self._store, self._clock)
        return arrival

    def _arrival(self, newcomer: Newcomer, person: PersonRow | None, booked: int | None) -> Arrival:
        wrong = self._wrong(newcomer, person)
        if wrong:
            return Arrival(newcomer.user_id, "refused", 0, wrong)
        books = newcomer.used_tokens if booked is None else 0
        notes = () if person is None else tuple(_differences(newcomer, person))
        if booked is not None and booked != newcomer.used_tokens:
            notes += (
                f"used: {booked:,} were booked before, not {newcomer.used_tokens:,}; left so "
                "('user set-used' corrects it)",
            )
        outcome: Literal["create", "exists"] = "create" if person is None else "exists"
        return Arrival(newcomer.user_id, outcome, books, notes)

    def _wrong(self, newcomer: Newcomer, person: PersonRow | None) -> tuple[str, ...]:
        """All that is wrong with a newcomer, each with what was expected."""
        user_id, tier, email, zone = (
            newcomer.user_id, newcomer.tier, newcomer.email, newcomer.zone,
        )  # fmt: skip
        wrong = []
        if not valid_user_id(user_id):
            wrong.append(
                f"id '{user_id}': expected 1 to 128 letters, digits and ._:@+-, the first a letter "
                "or digit"
            )
        if tier is not None and tier not in self._plan.tiers:
            wrong.append(f"tier '{tier}': expected one of {', '.join(self._plan.tiers)}")
        if email is not None and not valid_email(email):
            wrong.append(f"email '{email}': expected one like name@example.org")
        if zone is not None and not zone_exists(zone):
            wrong.append(f"zone '{zone}': expected a name such as Europe/London")
        if person is not None and person.state == "disabled":
            wrong.append("the user was deleted: 'user unblock' brings it back")
        return tuple(wrong)


def _differences(newcomer: Newcomer, person: PersonRow) -> list[str]:
    """Where the user who is there is another one; that stays."""
    pairs = (
        ("tier", newcomer.tier, person.tier),
        ("email", newcomer.email, person.email),
        ("zone", newcomer.zone, person.zone),
    )
    return [
        f"{name}: is {found or 'none'}, not {wanted}; left so"
        for name, wanted, found in pairs
        if wanted is not None and wanted != found
    ]


def _event_id(user_id: str) -> str:
    """The id of a user's moving in: a UUIDv8 (RFC 9562, section 5.8), so that no id of ours, which
    are of version 7, is ever the same."""
    digest = hashlib.sha256(f"moving in\0{user_id}".encode()).digest()
    value = int.from_bytes(digest[:16], "big") & ~(0xF << 76) & ~(0x3 << 62)
    return str(uuid.UUID(int=value | 0x8 << 76 | 0x2 << 62))
