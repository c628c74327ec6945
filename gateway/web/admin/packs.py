"""Packs: credited for a payment, taken back, listed; and payments that wait for somebody.

Crediting and taking back need an Idempotency-Key like all that makes money, and are done once for
each payment besides, whoever names it. What a pack holds is the offer of the payer's tier.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.flow.once import Intent
from gateway.flow.topups import PACKS_AT_ONCE_MAX, REFERENCE_CHARS_MAX
from gateway.ports.payments import Orders
from gateway.ports.sales import SoldPack
from gateway.web.admin.desk import Desk
from gateway.web.admin.route import Asked, Asks, Gives, Route, Takes
from gateway.web.admin.users import Words
from gateway.web.words import instant

_PROBLEMS_ROWS = 100
_Reference = Annotated[
    str, Meta(pattern=f"^[!-~]{{1,{REFERENCE_CHARS_MAX}}}$", description="names a payment, once")
]
_Packs = Annotated[int, Meta(ge=1, le=PACKS_AT_ONCE_MAX)]


class CreditAsked(Asks, frozen=True, kw_only=True):
    """`packs` times the offer of the payer's tier, as one pack."""

    payment: _Reference
    packs: _Packs = 1


class RefundAsked(Asks, frozen=True, kw_only=True):
    """The pack that was credited for this payment. `reason` goes into the ledger."""

    payment: _Reference
    reason: Words


class PackSold(msgspec.Struct, frozen=True, kw_only=True):
    """A pack as it was sold, and what became of it by the ledger, in tokens."""

    pack: str
    payer: str
    payment: str
    state: Literal["live", "spent", "ended", "refunded"]
    granted_tokens: int
    spent_tokens: int
    left_tokens: int
    bought_at: str
    ends_at: str
    refunded_at: str | None
    refund_reason: str | None
    reclaimed_tokens: int


class PacksSold(msgspec.Struct, frozen=True, kw_only=True):
    """The packs of a user's payer, the newest first."""

    user: str
    packs: list[PackSold]


class PaymentProblem(msgspec.Struct, frozen=True, kw_only=True):
    """A payment that somebody has to look at."""

    at: str
    order: str | None
    user: str | None
    payment: str | None
    problem: str


class PaymentProblems(msgspec.Struct, frozen=True, kw_only=True):
    """The newest hundred."""

    problems: list[PaymentProblem]


class Packs:
    """The routes of packs."""

    def __init__(self, desk: Desk, orders: Orders) -> None:
        self._desk = desk
        self._orders = orders

    def routes(self) -> tuple[Route, ...]:
        """As they stand in the table."""
        of_user = "/admin/v1/users/{user_id}/packs"
        return (
            Route(
                f"POST {of_user}", "money", "credit the pack that a payment bought",
                Gives(PackSold), self.credit, Takes(body=CreditAsked, once=True),
            ),
            Route(f"GET {of_user}", "read", "a user's packs", Gives(PacksSold), self.packs),
            Route(
                "POST /admin/v1/refunds", "money", "take back the pack of a payment",
                Gives(PackSold), self.refund, Takes(body=RefundAsked, once=True),
            ),
            Route(
                "GET /admin/v1/payments/problems", "read",
                "payments that somebody has to look at", Gives(PaymentProblems), self.problems,
            ),
        )  # fmt: skip

    async def credit(self, asked: Asked) -> bytes:
        """The pack."""
        body, user_id, operator = asked.body, asked.path["user_id"], asked.operator
        topups = self._desk.of(operator).topups

        async def settle() -> Intent:
            await self._desk.person(user_id)
            return {"payment": body.payment, "packs": body.packs}

        async def book(_: str, intent: Intent) -> PackSold:
            pack = await topups.credit(user_id, intent["payment"], operator.who, intent["packs"])
            return self._sold(pack)

        return await asked.booked(settle, book)

    async def refund(self, asked: Asked) -> bytes:
        """The pack after it."""
        body, operator = asked.body, asked.operator
        topups = self._desk.of(operator).topups

        async def settle() -> Intent:
            return {"payment": body.payment}

        async def book(_: str, intent: Intent) -> PackSold:
            return self._sold(await topups.refund(intent["payment"], body.reason, operator.who))

        return await asked.booked(settle, book)

    async def packs(self, asked: Asked) -> PacksSold:
        """All of them."""
        user_id = asked.path["user_id"]
        await self._desk.person(user_id)
        sold = await self._desk.of(asked.operator).topups.packs(user_id)
        return PacksSold(user=user_id, packs=[self._sold(pack) for pack in sold])

    async def problems(self, _: Asked) -> PaymentProblems:
        """The newest."""
        found = await self._orders.problems(_PROBLEMS_ROWS)
        return PaymentProblems(
            problems=[
                PaymentProblem(
                    at=instant(each.at_ms),
                    order=each.order_id,
                    user=each.user_id,
                    payment=each.payment_ref,
                    problem=each.problem,
                )
                for each in found
            ]
        )

    def _sold(self, pack: SoldPack) -> PackSold:
        state: Literal["live", "spent", "ended", "refunded"] = "spent"
        if pack.refunded_ms is not None:
            state = "refunded"
        elif pack.ends_ms <= self._desk.clock.now_ms():
            state = "ended"
        elif pack.live:
            state = "live"
        return PackSold(
            pack=pack.pack_id,
            payer=pack.payer,
            payment=pack.payment_ref,
            state=state,
            granted_tokens=pack.granted_tokens,
            spent_tokens=pack.spent_tokens,
            left_tokens=pack.left_tokens,
            bought_at=instant(pack.created_ms),
            ends_at=instant(pack.ends_ms),
            refunded_at=None if pack.refunded_ms is None else instant(pack.refunded_ms),
            refund_reason=pack.reason,
            reclaimed_tokens=pack.reclaimed_tokens,
        )
