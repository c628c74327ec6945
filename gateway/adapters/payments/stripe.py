"""Stripe: Checkout sessions, and events by webhook, through Stripe's own library.

Fulfils `gateway.ports.payments.PaymentProvider`. An event is proven by the library over the raw
bytes, and read only then. Events of other kinds, and of payments that no order of ours began, are
none. Importing the library takes a third of a second: only a gateway that sells does.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import msgspec
import stripe

from gateway.core.payments import Order, PaymentEvent
from gateway.ports.payments import Forged, ProviderUnavailable, Session

# Older is refused. Stripe signs each attempt anew, so a repetition of days is not older.
# https://docs.stripe.com/webhooks#replay-attacks
SIGNED_WITHIN_S = 300
_CALL_S, _IN_ALL_S, _RETRIES = 8.0, 20.0, 2
_ORDER = "quota_gateway_order"  # the key in the metadata of a session, and of its payment
_SESSION_KINDS = ("checkout.session.completed", "checkout.session.async_payment_succeeded")
_REFUND_KIND = "charge.refunded"


@dataclass(frozen=True, slots=True)
class StripeTerms:
    """What the configuration says. `api_base`: another address of the API; None: Stripe's."""

    secret_key: str
    webhook_secret: str
    success_url: str
    cancel_url: str
    currency: str
    api_base: str | None = None


class _CheckoutSession(msgspec.Struct):
    """https://docs.stripe.com/api/checkout/sessions/object"""

    id: str
    payment_status: str
    amount_total: int | None = None
    currency: str | None = None
    client_reference_id: str | None = None
    payment_intent: str | None = None
    metadata: dict[str, str] | None = None


class _Charge(msgspec.Struct):
    """https://docs.stripe.com/api/charges/object"""

    id: str
    refunded: bool
    amount_refunded: int
    currency: str
    payment_intent: str | None = None
    metadata: dict[str, str] | None = None


class _Data(msgspec.Struct):
    object: msgspec.Raw


class _Event(msgspec.Struct):
    """https://docs.stripe.com/api/events/object"""

    id: str
    type: str
    data: _Data


class StripeProvider:
    """Speaks to Stripe with one connection pool; `close` it at the end."""

    def __init__(self, terms: StripeTerms) -> None:
        if not terms.secret_key.strip() or not terms.webhook_secret.strip():
            raise ValueError("Stripe's keys are empty: anybody could sign an event")
        self._terms = terms
        self._http: Any = stripe.AIOHTTPClient(timeout=_CALL_S)
        self._client = stripe.StripeClient(
            terms.secret_key,
            http_client=self._http,
            max_network_retries=_RETRIES,
            base_addresses={"api": terms.api_base} if terms.api_base else {},
        )

    @property
    def currency(self) -> str:
        return self._terms.currency

    async def checkout(self, order: Order) -> Session:
        try:
            async with asyncio.timeout(_IN_ALL_S):
                session = await self._client.v1.checkout.sessions.create_async(
                    self._asked(order), {"idempotency_key": f"order-{order.order_id}"}
                )
        except (stripe.StripeError, TimeoutError) as error:
            said = getattr(error, "code", None) or getattr(error, "http_status", None) or ""
            raise ProviderUnavailable(f"Stripe: {type(error).__name__} {said}".strip()) from error
        if not session.url:
            raise ProviderUnavailable(f"Stripe: the session {session.id} has no address")
        return Session(session.id, session.url)

    def event(self, raw: bytes, signature: str) -> PaymentEvent | None:
        try:
            # What is not ASCII is no signature, and the library cannot compare it.
            signature.encode("ascii")
            stripe.WebhookSignature.verify_header(
                raw, signature, self._terms.webhook_secret, SIGNED_WITHIN_S
            )
            event = msgspec.json.decode(raw, type=_Event)
            return _read(event)
        except stripe.SignatureVerificationError as error:
            raise Forged("the signature does not fit, or is too old") from error
        except (msgspec.DecodeError, ValueError) as error:
            raise Forged(f"not an event of Stripe: {type(error).__name__}") from error

    async def close(self) -> None:
        await self._http.close_async()

    def _asked(self, order: Order) -> Any:
        """The parameters of the session: everything that is sold is fixed here."""
        named = {_ORDER: order.order_id}
        price = {
            "currency": order.currency,
            "unit_amount": order.amount_pence // order.packs,
            "product_data": {"name": f"{order.tokens // order.packs:,} tokens"},
        }
        return {
            "mode": "payment",
            "line_items": [{"quantity": order.packs, "price_data": price}],
            "client_reference_id": order.user_id,
            "metadata": named,
            "payment_intent_data": {"metadata": named},
            "success_url": self._terms.success_url,
            "cancel_url": self._terms.cancel_url,
        }


def _read(event: _Event) -> PaymentEvent | None:
    """What a proven event says about packs."""
    if event.type in _SESSION_KINDS:
        session = msgspec.json.decode(event.data.object, type=_CheckoutSession)
        order_id = (session.metadata or {}).get(_ORDER)
        if order_id is None:
            return None
        return PaymentEvent(
            event_id=event.id,
            kind="paid" if session.payment_status == "paid" else "unpaid",
            object_id=session.id,
            order_id=order_id,
            payment_ref=session.payment_intent or session.id,
            amount_pence=session.amount_total or 0,
            currency=session.currency or "",
            user_id=session.client_reference_id,
            session_id=session.id,
        )
    if event.type == _REFUND_KIND:
        charge = msgspec.json.decode(event.data.object, type=_Charge)
        return PaymentEvent(
            event_id=event.id,
            kind="refunded" if charge.refunded else "partly_refunded",
            object_id=charge.id,
            order_id=(charge.metadata or {}).get(_ORDER),
            payment_ref=charge.payment_intent or charge.id,
            amount_pence=charge.amount_refunded,
            currency=charge.currency,
        )
    return None
