"""Packs bought, taken back and listed: each is in the ledger first.

What a pack holds and how long it lasts is the offer of the payer's tier. A change answers only
after it was projected, so it binds at the very next call; if that fails, the projection job does
it, and the same request again finds it done. Used by the command line, the admin API and the
payment webhook, so nothing here knows how a request came.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.core.identity import Identity
from gateway.core.plan import PackOffer, Plan
from gateway.core.refusal import Upgrade
from gateway.core.rid import make_rid
from gateway.flow.accounts import project
from gateway.ports.clock import Clock
from gateway.ports.directory import Directory, PackCredit
from gateway.ports.ledger import Conflict, Unknown
from gateway.ports.quota_store import QuotaStore
from gateway.ports.sales import Refund, Sales, SoldPack

PACKS_AT_ONCE_MAX = 100
REFERENCE_CHARS_MAX = 255
_DAY_MS = 86_400_000


class NotOffered(Conflict):
    """The tier may not buy packs. `upgrade` is the way on, where there is one."""

    def __init__(self, message: str, upgrade: Upgrade | None) -> None:
        super().__init__(message)
        self.upgrade = upgrade


@dataclass(frozen=True, slots=True)
class Shop:
    """What is sold: the offers of the plan's tiers, and where the next tier is to be had."""

    plan: Plan
    upgrade_url: str | None

    def offer(self, tier_name: str) -> PackOffer:
        """The pack this tier may buy; NotOffered when it may not."""
        tier = self.plan.tiers.get(tier_name)
        if tier is not None and tier.packs is not None:
            return tier.packs
        upgrade = Upgrade(tier.upgrade, self.upgrade_url) if tier and tier.upgrade else None
        way_on = ""
        if upgrade is not None:
            at = f" at {upgrade.url}" if upgrade.url else ""
            way_on = f" To go on, upgrade to the tier '{upgrade.tier}'{at}."
        raise NotOffered(f"The tier '{tier_name}' cannot buy packs.{way_on}", upgrade)


class TopUps:
    """Packs. Conflict: the change contradicts what is there; StoreUnavailable: it
    is booked and Redis will be told by the projection job; LedgerUnavailable: try later."""

    def __init__(
        self,
        directory: Directory,
        sales: Sales,
        store: QuotaStore,
        shop: Shop,
        clock: Clock,
    ) -> None:
        self._directory = directory
        self._sales = sales
        self._store = store
        self._shop = shop
        self._clock = clock

    async def credit(self, user_id: str, payment_ref: str, author: str, packs: int = 1) -> SoldPack:
        """One pack of `packs` times the offer of the payer's tier, once for each `payment_ref`.

        The same reference again for the same payer and number of tokens answers with the pack that
        is there. NotOffered (a Conflict) when the tier may not buy.
        """
        if not 1 <= packs <= PACKS_AT_ONCE_MAX:
            raise Conflict(f"packs: expected 1 to {PACKS_AT_ONCE_MAX}, found {packs}")
        identity = await self._known(user_id)
        offer = self._shop.offer(identity.tier)
        now_ms = self._clock.now_ms()
        return await self.grant(
            PackCredit(
                event_id=self._new_id(),
                user_id=user_id,
                pack_id=self._new_id(),
                tokens=packs * offer.tokens,
                ends_ms=now_ms + offer.valid_days * _DAY_MS,
                payment_ref=payment_ref,
                author=author,
            )
        )

    async def grant(self, credit: PackCredit) -> SoldPack:
        """The same with figures that were fixed before, as a payment's order has them."""
        _check_reference(credit.payment_ref)
        identity = await self._directory.credit_pack(credit)
        await self._project(identity)
        return await self._sold(credit.payment_ref)

    async def refund(self, payment_ref: str, reason: str, author: str) -> SoldPack:
        """Take a pack back: what is left of it goes to 0, and what was spent counts as used in the
        period that runs now, as an adjustment. Once: a second time changes nothing."""
        _check_reason(reason)
        payer = await self._sales.refund(Refund(self._new_id(), payment_ref, reason, author))
        await self._project(payer)  # now nothing more is spent of it
        reclaimed = await self._sales.reclaim(payment_ref, self._new_id())
        if reclaimed is not None:
            await self._project(reclaimed)
        return await self._sold(payment_ref)

    async def packs(self, user_id: str) -> Sequence[SoldPack]:
        """All packs of the user's payer, the newest first."""
        identity = await self._known(user_id)
        return await self._sales.packs(identity.payer)

    async def _known(self, user_id: str) -> Identity:
        identity = await self._directory.identity_of_user(user_id)
        if identity is None:
            raise Unknown(f"there is no user {user_id!r}")
        return identity

    async def _project(self, identity: Identity) -> None:
        await project(identity, self._directory, self._store, self._clock)

    async def _sold(self, payment_ref: str) -> SoldPack:
        sold = await self._sales.pack_of(payment_ref)
        if sold is None:
            raise Unknown(f"nothing was credited for the payment {payment_ref!r}")
        return sold

    def _new_id(self) -> str:
        return make_rid(self._clock.now_ms(), os.urandom(10))


def _check_reference(payment_ref: str) -> None:
    usable = payment_ref.isascii() and payment_ref.isprintable() and " " not in payment_ref
    if not usable or not 0 < len(payment_ref) <= REFERENCE_CHARS_MAX:
        raise Conflict(
            f"payment reference {payment_ref!r}: expected 1 to {REFERENCE_CHARS_MAX} printable "
            "ASCII characters without spaces"
        )


def _check_reason(reason: str) -> None:
    if not reason.strip():
        raise Conflict("a reason is needed: it goes into the ledger")
