"""Rules of the payment providers: keys that prove something, pages that a payer can be sent to.

An empty secret would let anybody sign a payment, so the gateway refuses to start with one. Values
of secrets are described, never shown.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.errors import Problem
from gateway.config.shape import File, Stripe
from gateway.config.values import is_web_url

# Shorter is no secret of Stripe's: theirs have 32 characters and more behind a prefix.
SECRET_CHARACTERS_MIN = 16


def check_payments(file: File) -> Iterator[Problem]:
    """Everything that is wrong with `payments` whose single values are right."""
    stripe = file.payments.stripe
    if stripe is None:
        return
    yield from _secrets(stripe)
    for name in ("success_url", "cancel_url"):
        # The page may have parameters; of the address before them the same is true as elsewhere.
        url = getattr(stripe, name)
        if not is_web_url(url.partition("?")[0]) or not url.isprintable() or " " in url:
            yield Problem(
                f"payments.stripe.{name}",
                "expected http://host/page or https://host/page, parameters after a ? allowed",
            )
    if stripe.api_base is not None and not is_web_url(stripe.api_base):
        yield Problem("payments.stripe.api_base", "expected http://host or https://host")


def _secrets(stripe: Stripe) -> Iterator[Problem]:
    what = {
        "secret_key": "an API key of Stripe's, such as rk_live_... or sk_live_...",
        "webhook_secret": "the webhook's signing secret, whsec_...: with an empty one anybody "
        "could sign a payment",
    }
    for name, expected in what.items():
        secret = getattr(stripe, name)
        if len(secret.reveal()) < SECRET_CHARACTERS_MIN or not secret.is_header_value:
            yield Problem(
                f"payments.stripe.{name}",
                f"expected {expected}; at least {SECRET_CHARACTERS_MIN} characters without spaces "
                "(null instead of the section turns payments off)",
            )
