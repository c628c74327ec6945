"""Buying a pack: an order, a page of the provider, and the provider's word that it was paid.

What is sold is fixed in the order before the payer is sent away, and nothing is credited but by a
proven event that agrees with it. An event is answered when what it means is in the ledger; Redis is
told at once, and by the projection job if it does not answer. Refuses to know which provider.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

from gateway.core.identity import Identity
from gateway.core.payments import Order, Step
from gateway.core.rid import make_rid
from gateway.flow.accounts import project
from gateway.flow.topups import PACKS_AT_ONCE_MAX, Shop
from gateway.ports.clock import Clock
from gateway.ports.directory import Directory
from gateway.ports.ledger import Conflict
from gateway.ports.payments import NewIds, Orders, PaymentProvider, Taken
from gateway.ports.quota_store import QuotaStore, StoreUnavailable
from gateway.ports.sales import Sales

UNPAID_ORDERS_MAX = 10
AUTHOR = "payments"
_PENCE = 100
_log = logging.getLogger("gateway.payments")


@dataclass(frozen=True, slots=True)
class Records:
    """Where it is all written down."""

    directory: Directory
    sales: Sales
    orders: Orders
    store: QuotaStore


@dataclass(frozen=True, slots=True)
class Begun:
    """An order, and where it is paid."""

    order: Order
    url: str


class Payments:
    """Orders and events. LedgerUnavailable: try later, nothing was lost."""

    def __init__(
        self, records: Records, provider: PaymentProvider, shop: Shop, clock: Clock
    ) -> None:
        self._records = records
        self._provider = provider
        self._shop = shop
        self._clock = clock

    async def begin(self, identity: Identity, packs: int, order_id: str) -> Begun:
        """An order for `packs` times the offer of the user's tier, and the page to pay it on.

        NotOffered when the tier may not buy, another Conflict when too much is open or bought,
        ProviderUnavailable when the provider has no page for it.
        """
        if not 1 <= packs <= PACKS_AT_ONCE_MAX:
            raise Conflict(f"packs: expected 1 to {PACKS_AT_ONCE_MAX}, found {packs}")
        offer = self._shop.offer(identity.tier)
        order = Order(
            order_id=order_id,
            user_id=identity.user_id,
            payer=identity.payer,
            packs=packs,
            tokens=packs * offer.tokens,
            valid_days=offer.valid_days,
            amount_pence=packs * int(offer.price_gbp * _PENCE),
            currency=self._provider.currency,
        )
        orders = self._records.orders
        await orders.open(order, UNPAID_ORDERS_MAX)
        session = await self._provider.checkout(order)
        await orders.sent(order_id, session.session_id)
        return Begun(order, session.url)

    async def take(self, raw: bytes, signature: str) -> None:
        """Do what an event of the provider means, once. Returns also where there is nothing to do,
        and where an operator has something to look at. Forged or Replayed: it is not believed."""
        event = self._provider.event(raw, signature)
        if event is None:
            return
        ids = NewIds(self._new_id(), self._new_id())
        taken = await self._records.orders.take(event, ids, AUTHOR)
        verdict = taken.verdict
        if verdict.step is Step.PROBLEM:
            _log.error(
                "payment event %s of order %s is a problem: %s",
                *(event.event_id, event.order_id, verdict.problem),
            )
        elif verdict.step is not Step.NOTHING:
            _log.info("payment event %s: %s", event.event_id, verdict.step.value)
        if taken.payer is not None:
            await self._follow(taken, taken.payer)

    async def _follow(self, taken: Taken, payer: Identity) -> None:
        """What is booked comes into force; the jobs do it where Redis does not answer now."""
        records = self._records
        try:
            await project(payer, records.directory, records.store, self._clock)
            if taken.verdict.step is Step.TAKE_BACK:
                changed = await records.sales.reclaim(taken.payment_ref, self._new_id())
                if changed is not None:
                    await project(changed, records.directory, records.store, self._clock)
        except StoreUnavailable as error:
            _log.warning("payment %s: Redis is told later: %s", taken.payment_ref, error)

    def _new_id(self) -> str:
        return make_rid(self._clock.now_ms(), os.urandom(10))
