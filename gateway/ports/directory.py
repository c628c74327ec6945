"""Users, their keys and teams, and what they are entitled to, kept in Postgres beside the ledger.

A change raises the user's revision in the transaction that books it; `LedgerUnavailable` means "try
later", `Conflict` that the change contradicts what is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.core.identity import Identity
from gateway.core.period import Calendar
from gateway.core.quota.entitle import Entitlement


@dataclass(frozen=True, slots=True)
class Adjustment:
    """A correction of what counts as used, by a person: tokens may be negative."""

    event_id: str
    user_id: str
    period_start_ms: int
    tokens: int
    reason: str
    author: str


@dataclass(frozen=True, slots=True)
class PackCredit:
    """A pack to be granted, until `ends_ms`. `payment_ref` names the payment, once for ever."""

    event_id: str
    user_id: str
    pack_id: str
    tokens: int
    ends_ms: int
    payment_ref: str
    author: str


class Keys(Protocol):
    """Whose a key is."""

    async def identity_of_key(self, digest: bytes) -> Identity | None:
        """None for an unknown, revoked or disabled key: the caller may not tell which."""
        ...


class Directory(Keys, Protocol):
    """Users and keys. A change raises the user's revision in the same transaction."""

    async def identity_of_user(self, user_id: str) -> Identity | None: ...

    async def as_payer(self, user_id: str) -> Identity | None:
        """A user, or a team, as one who pays for itself, whatever team it is in."""
        ...

    async def entitlement(
        self, payer: str, member: str | None, period_start_ms: int
    ) -> Entitlement | None:
        """Of a payer with its packs, or of one member of it; None when there is no such. Who has
        joined a team still has an account of its own."""
        ...

    async def create_user(
        self, user_id: str, tier: str, calendar: Calendar, email: str | None = None
    ) -> Identity:
        """Conflict when the user, or a team of that name, exists."""
        ...

    async def set_calendar(self, user_id: str, calendar: Calendar) -> Identity:
        """When the periods begin from now on. Conflict when there is no such payer."""
        ...

    async def credit_pack(self, credit: PackCredit) -> Identity:
        """Grant a pack, with its topup entry. The same `payment_ref` again changes nothing.

        Conflict when there is no such user, the reference was used for another grant, or the payer
        has PACKS_MAX live packs.
        """
        ...

    async def set_tier(self, user_id: str, tier: str) -> Identity:
        """Conflict when there is no such payer."""
        ...

    async def claim_tier(self, user_id: str, tier: str, claimed_ms: int) -> Identity:
        """Set it where it was last set before `claimed_ms`; otherwise nothing changes. Of a member
        nothing does, either. Conflict when there is no such user."""
        ...

    async def adjust(self, adjustment: Adjustment) -> Identity:
        """Book the adjustment entry and its sum. The same `event_id` again changes nothing.

        Conflict when there is no such user, or the id is booked with other content.
        """
        ...

    async def create_key(
        self, key_id: str, user_id: str, digest: bytes, is_service: bool = False
    ) -> Identity:
        """`is_service`: see Identity. Conflict when there is no such user, it is a team, or the key
        exists."""
        ...

    async def revoke_key(self, key_id: str) -> Identity:
        """Conflict when there is no such key. Revoking twice keeps the first time."""
        ...

    async def raise_revision(self, payer: str, past: int) -> None:
        """Revisions of the payer and its members above `past`, where they are not; no entitlement
        changes. For a record that lost changes of which the store was told."""
        ...

    async def unprojected(self, rows_max: int) -> Sequence[Identity]:
        """Users and teams whose own revision Redis has not confirmed yet."""
        ...

    async def changed_lately(self, within_s: int, after: str, rows_max: int) -> Sequence[Identity]:
        """Users whose entitlement was changed by somebody in the last seconds, in the order of
        their ids, beginning behind `after` ('': with the first)."""
        ...

    async def mark_projected(self, user_id: str, rev: int) -> None:
        """Redis has confirmed `rev`; a lower one than before changes nothing."""
        ...

    async def users(self) -> Sequence[Identity]: ...
