"""`/quota/v1/topup` and the webhook of the payment provider.

The first answers a signed-in user with the address of a page to pay on. The second is called by the
provider: what is believed is answered 200, also where there was nothing to do, so that it is not
sent for days; what is not proven, and what cannot be kept at the moment, is answered otherwise.
What was sold and what an event means is decided in the flow.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec

from gateway.core.identity import Identity
from gateway.core.refusal import Case, Refused
from gateway.flow.identify import backend_unavailable
from gateway.flow.payments import Payments
from gateway.flow.topups import PACKS_AT_ONCE_MAX, NotOffered
from gateway.ports.ledger import Conflict, LedgerUnavailable
from gateway.ports.metrics import Metrics
from gateway.ports.payments import Forged, ProviderUnavailable, Replayed
from gateway.web.http_request import HttpRequest
from gateway.web.json_answer import json_answer
from gateway.web.request import read_body
from gateway.web.response import Response

_ASK_BYTES_MAX = 4096
_EVENT_BYTES_MAX = 1 << 20  # some hundred kilobytes is the largest that Stripe is known to send
_log = logging.getLogger("gateway.payments")

SignedIn = Callable[[HttpRequest], Awaitable[Identity]]
"""Who sends a request, by the ledger: what is sold depends on the tier. Or Refused."""


class TopUpBody(msgspec.Struct, forbid_unknown_fields=True):
    """What a user may ask for: how many packs, and nothing else."""

    packs: Annotated[int, msgspec.Meta(ge=1, le=PACKS_AT_ONCE_MAX)] = 1


class TopUpAnswer(msgspec.Struct):
    """An order, to be paid at `url`. `amount` is in `currency`, with pence."""

    url: str
    order: str
    packs: int
    tokens: int
    valid_days: int
    amount: str
    currency: str


class EventAnswer(msgspec.Struct):
    """The event is kept, or there was nothing to do."""

    received: bool


class PaymentHandlers:
    """Both, as handlers of a request and its id. Each raises Refused."""

    def __init__(self, payments: Payments, signed_in: SignedIn, metrics: Metrics) -> None:
        self._payments = payments
        self._signed_in = signed_in
        self._metrics = metrics

    async def topup(self, request: HttpRequest, rid: str) -> Response:
        """`POST /quota/v1/topup`, `{"packs": 1}` or no body: the address of a page to pay on."""
        identity = await self._signed_in(request)
        packs = _packs_of(await read_body(request, _ASK_BYTES_MAX))
        try:
            begun = await self._payments.begin(identity, packs, rid)
        except NotOffered as error:
            refused = Refused(Case.TOPUP_NOT_AVAILABLE, str(error)).of(identity)
            refused.upgrade = error.upgrade
            raise refused from error
        except Conflict as error:
            text = f"A pack cannot be bought now: {error}."
            raise Refused(Case.TOPUP_CONFLICT, text).of(identity) from error
        except ProviderUnavailable as error:
            _log.warning("order %s: %s", rid, error)
            text = "The payment service does not answer. Nothing was bought; try again shortly."
            raise Refused(Case.PAYMENT_UNAVAILABLE, text).of(identity) from error
        except LedgerUnavailable as error:
            raise backend_unavailable("the ledger") from error
        self._metrics.decided(identity.tier, "quota_topup", "admitted", "free")
        order = begun.order
        amount = f"{order.amount_pence // 100}.{order.amount_pence % 100:02d}"
        answer = TopUpAnswer(
            url=begun.url,
            order=order.order_id,
            packs=order.packs,
            tokens=order.tokens,
            valid_days=order.valid_days,
            amount=amount,
            currency=order.currency,
        )
        return json_answer(rid, answer)

    async def event(self, request: HttpRequest, rid: str) -> Response:
        """`POST /quota/v1/payments/stripe`: an event, signed."""
        raw = await read_body(request, _EVENT_BYTES_MAX)
        signatures = request.headers.getall("Stripe-Signature", [])
        try:
            if len(signatures) != 1:
                raise Forged("no signature, or several")
            await self._payments.take(raw, signatures[0])
        except (Forged, Replayed) as error:
            _log.warning("payment event refused (%s): %s", rid, error)
            text = "This is not an event of the payment provider as it was sent."
            raise Refused(Case.PAYMENT_NOT_PROVEN, text) from error
        except LedgerUnavailable as error:
            raise backend_unavailable("the ledger") from error
        self._metrics.decided("none", "quota_payments_stripe", "admitted", "free")
        return json_answer(rid, EventAnswer(received=True))


def _packs_of(body: bytes) -> int:
    """How many packs are asked for: one, where nothing is said."""
    if not body.strip():
        return 1
    try:
        return msgspec.json.decode(body, type=TopUpBody).packs
    except msgspec.ValidationError as error:
        raise Refused(
            Case.INVALID_VALUE,
            f'Expected {{"packs": 1}}, up to {PACKS_AT_ONCE_MAX}, and no other field.',
            param="packs",
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(Case.INVALID_JSON, "The request body is not valid JSON.") from error
