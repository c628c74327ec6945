"""Users, their keys and teams on Postgres.

Promises what `gateway.ports.directory.Directory` says: each change is one transaction that raises
the user's revision and leaves an audit row with its author. Knows only digests of keys, and refuses
to know what a tier grants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

from gateway.adapters.postgres.connection import Pool, Rejected, session, transaction
from gateway.adapters.postgres.from_records import identity_of, packs_of
from gateway.adapters.postgres.grants import adjust, credit_pack, no_payer, no_user
from gateway.adapters.postgres.statements import arrivals, directory
from gateway.core.identity import Identity, valid_user_id
from gateway.core.overrides import Overrides, encode_overrides
from gateway.core.period import Calendar
from gateway.core.quota.entitle import PACKS_MAX, Entitlement
from gateway.ports.directory import Adjustment, PackCredit
from gateway.ports.ledger import Conflict, Unknown
from gateway.ports.people import MovedIn, UserState


class PostgresDirectory:
    """Fulfils the ports `Directory` and `PeopleDirectory`. `author` stands in the audit beside each
    change."""

    def __init__(self, pool: Pool, author: str) -> None:
        self._pool = pool
        self._author = author

    def by(self, author: str) -> PostgresDirectory:
        """The same, with another author beside its changes."""
        return PostgresDirectory(self._pool, author)

    async def identity_of_key(self, digest: bytes) -> Identity | None:
        async with session(self._pool) as connection:
            found = await connection.fetchrow(directory.IDENTITY_OF_KEY, digest)
        return None if found is None else identity_of(found)

    async def identity_of_user(self, user_id: str) -> Identity | None:
        if not valid_user_id(user_id):  # comes from tokens and headers; text cannot hold a NUL
            return None
        async with session(self._pool) as connection:
            found = await connection.fetchrow(directory.IDENTITY_OF_USER, user_id)
        return None if found is None else identity_of(found)

    async def as_payer(self, user_id: str) -> Identity | None:
        async with session(self._pool) as connection:
            found = await connection.fetchrow(directory.AS_PAYER, user_id)
        return None if found is None else identity_of(found)

    async def entitlement(
        self, payer: str, member: str | None, period_start_ms: int
    ) -> Entitlement | None:
        async with session(self._pool) as connection:
            found = await connection.fetchrow(
                directory.ENTITLEMENT, payer, member, period_start_ms, PACKS_MAX
            )
        if found is None:
            return None
        return Entitlement(
            payer=payer,
            rev=found["rev"],
            period_start_ms=period_start_ms,
            adjusted_tokens=found["adjusted_tokens"] or 0,
            packs=packs_of(found["packs"]),
            member=member,
        )

    async def raise_revision(self, payer: str, past: int) -> None:
        async with session(self._pool) as connection:
            await connection.execute(directory.RAISE_REVISION, payer, past)

    async def users(self) -> Sequence[Identity]:
        async with session(self._pool) as connection:
            return [identity_of(found) for found in await connection.fetch(directory.USERS)]

    async def unprojected(self, rows_max: int) -> Sequence[Identity]:
        async with session(self._pool) as connection:
            found = await connection.fetch(directory.UNPROJECTED, rows_max)
        return [identity_of(record) for record in found]

    async def changed_lately(self, within_s: int, after: str, rows_max: int) -> Sequence[Identity]:
        async with session(self._pool) as connection:
            found = await connection.fetch(directory.CHANGED_LATELY, within_s, after, rows_max)
        return [identity_of(record) for record in found]

    async def mark_projected(self, user_id: str, rev: int) -> None:
        async with session(self._pool) as connection:
            await connection.execute(directory.MARK_PROJECTED, user_id, rev)

    async def create_user(
        self, user_id: str, tier: str, calendar: Calendar, email: str | None = None
    ) -> Identity:
        return await self._create(user_id, tier, calendar, (email, False))

    async def create_team(self, team_id: str, tier: str, calendar: Calendar) -> Identity:
        return await self._create(team_id, tier, calendar, (None, True))

    async def _create(
        self, user_id: str, tier: str, calendar: Calendar, kind: tuple[str | None, bool]
    ) -> Identity:
        if not valid_user_id(user_id):
            raise Conflict(
                f"user id {user_id!r} is not valid: 1 to 128 letters, digits and ._:@+-, "
                "beginning with a letter or digit"
            )
        return await self._change(
            f"user {user_id} exists already",
            directory.CREATE_USER, user_id, tier, *kind, *_columns(calendar),
        )  # fmt: skip

    async def set_tier(self, user_id: str, tier: str) -> Identity:
        return await self._change(no_payer(user_id), directory.SET_TIER, user_id, tier)

    async def claim_tier(self, user_id: str, tier: str, claimed_ms: int) -> Identity:
        try:
            return await self._change("", directory.CLAIM_TIER, user_id, tier, claimed_ms)
        except Conflict:
            identity = await self.identity_of_user(user_id)
            if identity is None:
                raise Conflict(no_user(user_id)) from None
            return identity

    async def set_calendar(self, user_id: str, calendar: Calendar) -> Identity:
        return await self._change(
            no_payer(user_id), directory.SET_CALENDAR, user_id, *_columns(calendar)
        )

    async def set_email(self, user_id: str, email: str | None) -> Identity:
        return await self._change(no_user(user_id), directory.SET_EMAIL, user_id, email)

    async def set_limits(self, user_id: str, limits: Overrides) -> Identity:
        return await self._change(
            no_user(user_id), directory.SET_LIMITS, user_id, encode_overrides(limits)
        )

    async def set_state(self, user_id: str, state: UserState, reason: str | None) -> Identity:
        return await self._change(no_user(user_id), directory.SET_STATE, user_id, state, reason)

    async def join_team(self, user_id: str, team_id: str) -> Identity:
        return await self._change(
            f"{user_id} cannot join {team_id}: there is no such user or no such team, or the user "
            "is in another team",
            directory.JOIN_TEAM, user_id, team_id,
        )  # fmt: skip

    async def leave_team(self, user_id: str, team_id: str) -> Identity:
        return await self._change(
            f"{user_id} is no member of a team {team_id}", directory.LEAVE_TEAM, user_id, team_id
        )

    async def take_in(
        self, newcomers: Sequence[MovedIn], billing_day: int, reason: str
    ) -> set[str]:
        columns = zip(*(astuple(each) for each in newcomers), strict=True)
        try:
            async with session(self._pool) as connection:
                made = await connection.fetch(
                    arrivals.TAKE_IN, self._author, *columns, billing_day, reason
                )
        except Rejected as error:
            raise Conflict(f"they cannot be taken in: {error}") from error
        return {record["user_id"] for record in made}

    async def members(self, team_id: str) -> Sequence[Identity]:
        async with session(self._pool) as connection:
            found = await connection.fetch(directory.MEMBERS, team_id)
        return [identity_of(record) for record in found]

    async def create_key(
        self, key_id: str, user_id: str, digest: bytes, is_service: bool = False
    ) -> Identity:
        return await self._change(
            f"{no_user(user_id)} who could have a key",
            directory.CREATE_KEY, key_id, user_id, digest, is_service,
        )  # fmt: skip

    async def revoke_key(self, key_id: str) -> Identity:
        return await self._change(
            Unknown(f"there is no key {key_id}"), directory.REVOKE_KEY, key_id
        )

    async def adjust(self, adjustment: Adjustment) -> Identity:
        return await adjust(self._pool, adjustment)

    async def credit_pack(self, credit: PackCredit) -> Identity:
        return await credit_pack(self._pool, credit)

    async def _change(
        self, refusal: str | Conflict, statement: str, *arguments: object
    ) -> Identity:
        """Run a change; Conflict with `refusal` when it finds nothing to change."""
        try:
            async with transaction(self._pool) as connection:
                user_id = await connection.fetchval(statement, self._author, *arguments)
                changed = await connection.fetchrow(directory.IDENTITY, user_id)
        except Rejected as error:
            raise Conflict(f"not possible: {error}") from error
        if changed is None:
            raise refusal if isinstance(refusal, Conflict) else Conflict(refusal)
        return identity_of(changed)


def _columns(calendar: Calendar) -> tuple[object, ...]:
    """The calendar as the statements take it."""
    return (
        calendar.anchor_day, calendar.zone, calendar.since_ms,
        calendar.prior_anchor_day, calendar.prior_zone, calendar.prior_since_ms,
    )  # fmt: skip
