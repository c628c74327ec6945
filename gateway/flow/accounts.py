"""Changing what users may spend: each change is a row in the ledger first, then in Redis.

Used by the command line and, later, by the admin API. A change answers only after it was projected,
so it binds at the very next call.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from gateway.core.identity import (
    KEY_RANDOM_BYTES,
    Identity,
    format_key,
    key_digest,
    valid_email,
    valid_user_id,
)
from gateway.core.period import Calendar
from gateway.core.plan import Plan
from gateway.core.quota.entitle import EntitleCode, Snapshot
from gateway.core.rid import make_rid
from gateway.flow.figures import Figures
from gateway.flow.hydrate import Hydrator
from gateway.ports.clock import Clock
from gateway.ports.directory import Adjustment, Directory
from gateway.ports.ledger import Conflict, Unknown
from gateway.ports.quota_store import QuotaStore, StoreUnavailable


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made: `key` is shown once and stored nowhere."""

    key_id: str
    key: str


async def project(
    identity: Identity, directory: Directory, store: QuotaStore, clock: Clock
) -> None:
    """Bring what a user is entitled to into Redis, and note that it is there.

    Of a member that is three accounts: the team's, its own within the team, and the one it had
    before it joined, which somebody may still remember as in force.
    """

    async def tell(account: Identity | None) -> int:
        now_ms = clock.now_ms()
        for _ in range(2):
            if account is None:
                return 0
            period = account.calendar.period_at(now_ms)
            told = await directory.entitlement(account.payer, account.member, period.start_ms)
            if told is None:
                return 0
            reply = await store.entitle(told, period.end_ms)
            if reply.code is not EntitleCode.PERIOD:
                return told.rev
            now_ms = reply.now_ms  # our clock is ahead of the server's, and a border lies between
        raise StoreUnavailable("the period of the account is not clear")

    told_rev = await tell(await directory.as_payer(identity.user_id))
    if identity.member is not None:
        payer_rev = await tell(await directory.as_payer(identity.payer))
        await directory.mark_projected(identity.payer, payer_rev)
        told_rev = min(told_rev, await tell(identity))
    await directory.mark_projected(identity.user_id, told_rev)


class Accounts:
    """What an operator does to users. Conflict: the change contradicts what is there."""

    def __init__(
        self,
        directory: Directory,
        store: QuotaStore,
        hydrator: Hydrator,
        plan: Plan,
        clock: Clock,
    ) -> None:
        self._directory = directory
        self._store = store
        self._figures = Figures(store, hydrator, clock)
        self._plan = plan
        self._clock = clock

    async def create_user(
        self,
        user_id: str,
        tier: str,
        email: str | None = None,
        calendar: Calendar | None = None,
    ) -> Identity:
        """A new user on a tier of the plan, with the plan's period unless it has its own."""
        if not valid_user_id(user_id):
            raise Conflict(
                f"user id {user_id!r}: expected 1 to 128 letters, digits and ._:@+-, "
                "the first a letter or digit"
            )
        self._check_tier(tier)
        if email is not None and not valid_email(email):
            raise Conflict(f"e-mail address {email!r}: expected one like name@example.org")
        plans = Calendar(self._plan.anchor_day, self._plan.zone)
        return await self._directory.create_user(user_id, tier, calendar or plans, email)

    async def set_tier(self, user_id: str, tier: str) -> Identity:
        """Move a user to another tier; what is used stays used."""
        self._check_tier(tier)
        identity = await self._directory.set_tier(user_id, tier)
        await project(identity, self._directory, self._store, self._clock)
        return identity

    async def set_calendar(self, user_id: str, anchor_day: int, zone: str) -> Identity:
        """Begin a user's periods on another day or in another zone, from the next period on."""
        identity = await self._known(user_id)
        try:
            calendar = identity.calendar.changed(anchor_day, zone, self._clock.now_ms())
        except ValueError as error:
            raise Conflict(str(error)) from error
        changed = await self._directory.set_calendar(user_id, calendar)
        await project(changed, self._directory, self._store, self._clock)
        return changed

    async def show(self, user_id: str) -> tuple[Identity, Snapshot]:
        """A user and the account at this moment, brought back from the ledger if need be."""
        identity = await self._known(user_id)
        return identity, await self._figures.of(identity)

    async def set_used(self, user_id: str, tokens: int, reason: str, author: str) -> Snapshot:
        """Make `tokens` what counts as used this period, by an adjustment entry."""
        if tokens < 0:
            raise Conflict(f"used tokens: expected 0 or more, found {tokens}")
        identity, before = await self.show(user_id)
        await self.adjust(
            Adjustment(
                event_id=self._new_id(),
                user_id=user_id,
                period_start_ms=before.period_start_ms,
                tokens=tokens - before.used_tokens,
                reason=reason,
                author=author,
            )
        )
        return await self._figures.of(identity)

    async def adjust(self, adjustment: Adjustment) -> None:
        """Book an adjustment; the same again changes nothing."""
        adjusted = await self._directory.adjust(adjustment)
        await project(adjusted, self._directory, self._store, self._clock)

    async def create_key(self, user_id: str, pepper: bytes, is_service: bool = False) -> NewKey:
        """A new key for a user, of 256 random bits. A service's speaks for others, and only at
        `/quota/v1`; the user is whose it is."""
        key, key_id = format_key(os.urandom(KEY_RANDOM_BYTES)), self._new_id()
        await self._directory.create_key(key_id, user_id, key_digest(key, pepper), is_service)
        return NewKey(key_id, key)

    async def revoke_key(self, key_id: str) -> Identity:
        """End a key; its next call is refused."""
        identity = await self._directory.revoke_key(key_id)
        await project(identity, self._directory, self._store, self._clock)
        return identity

    async def _known(self, user_id: str) -> Identity:
        identity = await self._directory.identity_of_user(user_id)
        if identity is None:
            raise Unknown(f"there is no user {user_id!r}")
        return identity

    def _check_tier(self, tier: str) -> None:
        if tier not in self._plan.tiers:
            offered = ", ".join(self._plan.tiers)
            raise Conflict(f"tier {tier!r} is not in the plan: expected one of {offered}")

    def _new_id(self) -> str:
        return make_rid(self._clock.now_ms(), os.urandom(10))
