"""Stripe: sessions that fix what is sold, events that are believed only when they are proven."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from gateway.adapters.payments.stripe import StripeProvider, StripeTerms
from gateway.core.payments import Order, PaymentEvent
from gateway.ports.payments import Forged, ProviderUnavailable
from tests.stripe_api import (
    SECRET_KEY,
    WEBHOOK_SECRET,
    Json,
    StripeApi,
    charge,
    event,
    paid,
    signature,
)

ORDER = Order("o-1", "ann", "team", 2, 640_000, 90, 400, "gbp")
SESSION: Json = {
    "id": "cs_test_1",
    "object": "checkout.session",
    "payment_status": "unpaid",
    "amount_total": 400,
    "currency": "gbp",
    "client_reference_id": "ann",
    "metadata": {"quota_gateway_order": "o-1"},
    "payment_intent": None,
}
COMPLETED = "checkout.session.completed"


@pytest.fixture
def api() -> Iterator[StripeApi]:
    server = StripeApi()
    yield server
    server.stop()


def terms(api: StripeApi, **changes: str) -> StripeTerms:
    given = {"secret_key": SECRET_KEY, "webhook_secret": WEBHOOK_SECRET, **changes}
    pages = {"success_url": "https://app.test/paid", "cancel_url": "https://app.test/plans"}
    return StripeTerms(**given, **pages, currency="gbp", api_base=api.url)


@pytest.fixture
async def provider(api: StripeApi) -> AsyncIterator[StripeProvider]:
    opened = StripeProvider(terms(api))
    yield opened
    await opened.close()


async def test_the_session_fixes_everything_that_is_sold(
    provider: StripeProvider, api: StripeApi
) -> None:
    session = await provider.checkout(ORDER)
    assert session.url == f"https://checkout.stripe.test/c/pay/{session.session_id}"
    assert api.asked == [
        {
            "mode": "payment",
            "line_items[0][quantity]": "2",
            "line_items[0][price_data][currency]": "gbp",
            "line_items[0][price_data][unit_amount]": "200",
            "line_items[0][price_data][product_data][name]": "320,000 tokens",
            "client_reference_id": "ann",
            "metadata[quota_gateway_order]": "o-1",
            "payment_intent_data[metadata][quota_gateway_order]": "o-1",
            "success_url": "https://app.test/paid",
            "cancel_url": "https://app.test/plans",
        }
    ]
    assert api.sessions[session.session_id]["amount_total"] == ORDER.amount_pence


async def test_one_order_is_one_session_however_often_it_is_asked_for(
    provider: StripeProvider, api: StripeApi
) -> None:
    """Also where Stripe answers with an error of its own first: the library repeats the call."""
    api.fail_next = 1
    first = await provider.checkout(ORDER)
    assert await provider.checkout(ORDER) == first
    assert set(api.keys) == {"order-o-1"}
    assert len(api.keys) == 3
    assert len(api.sessions) == 1


async def test_waiting_for_stripe_keeps_nobody_else_waiting(
    provider: StripeProvider, api: StripeApi
) -> None:
    with api.lock:  # no answer comes while it is held
        asked = asyncio.ensure_future(provider.checkout(ORDER))
        for _ in range(50):
            await asyncio.sleep(0.001)
        assert not asked.done()
    assert (await asked).url


@pytest.mark.parametrize("trouble", ["key", "errors", "away"])
async def test_trouble_of_stripe_has_one_name_and_shows_no_key(
    api: StripeApi, trouble: str
) -> None:
    wrong = "sk_test_wrong_wrong_wrong" if trouble == "key" else SECRET_KEY
    provider = StripeProvider(terms(api, secret_key=wrong))
    if trouble == "errors":
        api.fail_next = 10
    if trouble == "away":
        api.stop()
    with pytest.raises(ProviderUnavailable) as found:
        await provider.checkout(ORDER)
    await provider.close()
    assert wrong not in str(found.value)
    assert str(found.value).startswith("Stripe: ")


def test_a_paid_session_is_read(provider: StripeProvider) -> None:
    raw = event(COMPLETED, paid(SESSION), "evt_1")
    assert provider.event(raw, signature(raw)) == PaymentEvent(
        "evt_1", "paid", "cs_test_1", "o-1", "pi_1", 400, "gbp", "ann", "cs_test_1"
    )


@pytest.mark.parametrize(
    ("kind", "status", "read"),
    [
        (COMPLETED, "unpaid", "unpaid"),
        (COMPLETED, "no_payment_required", "unpaid"),
        ("checkout.session.async_payment_succeeded", "paid", "paid"),
        ("checkout.session.async_payment_failed", "unpaid", None),
        ("checkout.session.expired", "unpaid", None),
        ("invoice.paid", "paid", None),
    ],
)
def test_a_session_is_paid_only_when_it_says_so(
    provider: StripeProvider, kind: str, status: str, read: str | None
) -> None:
    raw = event(kind, paid(SESSION, payment_status=status))
    found = provider.event(raw, signature(raw))
    assert (found.kind if found else None) == read


def test_a_session_of_something_else_is_nobodys(provider: StripeProvider) -> None:
    """The account may sell other things too, and set up cards without any amount."""
    for other in (
        paid(SESSION, metadata={}),
        paid(SESSION, metadata=None, amount_total=None, currency=None),
    ):
        raw = event(COMPLETED, other)
        assert provider.event(raw, signature(raw)) is None


def test_a_refund_is_whole_or_a_part(provider: StripeProvider) -> None:
    session = paid(SESSION)
    raw = event("charge.refunded", charge(session, id="ch_1"), "evt_1")
    assert provider.event(raw, signature(raw)) == PaymentEvent(
        "evt_1", "refunded", "ch_1", "o-1", "pi_1", 400, "gbp"
    )
    raw = event("charge.refunded", charge(session, refunded=False, amount_refunded=150))
    part = provider.event(raw, signature(raw))
    assert part is not None
    assert (part.kind, part.amount_pence) == ("partly_refunded", 150)


RAW = event(COMPLETED, paid(SESSION), "evt_1")


def signed() -> str:
    """Made when the test runs: a signature is good for minutes only."""
    return signature(RAW)


FORGED: dict[str, tuple[bytes, Callable[[], str]]] = {
    "no header": (RAW, lambda: ""),
    "wrong digest": (RAW, lambda: "t=1,v1=00"),
    "nonsense": (RAW, lambda: "nonsense"),
    "empty parts": (RAW, lambda: "t=,v1="),
    "endless time": (RAW, lambda: f"t={'9' * 5000},v1=00"),
    "not ascii": (RAW, lambda: "t=1,v1=\u00e9"),
    "half a character": (RAW, lambda: "t=1,v1=\ud800"),
    "other scheme": (RAW, lambda: signature(RAW).replace("v1=", "v0=")),
    "somebody else's secret": (RAW, lambda: signature(RAW, "whsec_of_somebody_else")),
    "blank secret": (RAW, lambda: signature(RAW, " ")),
    "too old": (RAW, lambda: signature(RAW, age_s=301)),
    "other amount": (RAW.replace(b'"amount_total": 400', b'"amount_total": 4'), signed),
    "other currency": (RAW.replace(b"gbp", b"jpy"), signed),
    "other order": (RAW.replace(b"o-1", b"o-2"), signed),
    "other event": (RAW.replace(b"evt_1", b"evt_2"), signed),
    "other spaces": (json.dumps(json.loads(RAW)).encode(), signed),
    "one byte more": (RAW + b" ", signed),
    "not text": (b"\xff\xfe", signed),
    "nothing": (b"", signed),
}


@pytest.mark.parametrize("forged", FORGED)
def test_what_is_not_signed_as_it_stands_is_forged(provider: StripeProvider, forged: str) -> None:
    raw, header = FORGED[forged]
    with pytest.raises(Forged):
        provider.event(raw, header())


@pytest.mark.parametrize(
    "about",
    [
        {},
        {**SESSION, "metadata": {"quota_gateway_order": 7}},
        paid(SESSION, amount_total="400"),
        paid(SESSION, amount_total=400.5),
    ],
)
def test_what_is_signed_and_no_session_is_not_believed(
    provider: StripeProvider, about: Json
) -> None:
    raw = event(COMPLETED, about)
    with pytest.raises(Forged, match="not an event of Stripe"):
        provider.event(raw, signature(raw))


def test_a_signature_of_the_last_minutes_is_good(provider: StripeProvider) -> None:
    assert provider.event(RAW, signature(RAW, age_s=290)) is not None


@pytest.mark.parametrize("empty", ["secret_key", "webhook_secret"])
@pytest.mark.parametrize("value", ["", " \t"])
def test_an_empty_key_is_refused_at_once(api: StripeApi, empty: str, value: str) -> None:
    changes: dict[str, Any] = {empty: value}
    with pytest.raises(ValueError, match="anybody could sign"):
        StripeProvider(terms(api, **changes))


def test_a_gateway_that_sells_nothing_does_not_import_the_library() -> None:
    code = (
        "import sys, gateway.app.proxy_process, gateway.cli.topups; print('stripe' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "False\n", done.stderr
