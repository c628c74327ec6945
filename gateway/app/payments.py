"""The payment routes of a proxy worker, where the configuration names a provider.

Without one there are none, and the provider's library is not imported.
"""

from __future__ import annotations

from gateway.app.stores import Stores
from gateway.config import Settings
from gateway.core.identity import Identity
from gateway.flow.payments import Payments, Records
from gateway.flow.topups import Shop
from gateway.ports.metrics import Metrics
from gateway.ports.payments import PaymentProvider
from gateway.web.callers import Callers
from gateway.web.http_request import HttpRequest
from gateway.web.payments import PaymentHandlers
from gateway.web.quota_api import QuotaHandler


def open_provider(settings: Settings) -> PaymentProvider | None:
    """Who collects the money, to be closed at the end; None when nobody does."""
    stripe = settings.stripe
    if stripe is None:
        return None
    from gateway.adapters.payments.stripe import StripeProvider, StripeTerms

    return StripeProvider(
        StripeTerms(
            secret_key=stripe.secret_key.reveal(),
            webhook_secret=stripe.webhook_secret.reveal(),
            success_url=stripe.success_url,
            cancel_url=stripe.cancel_url,
            currency=stripe.currency,
            api_base=stripe.api_base.rstrip("/") if stripe.api_base else None,
        )
    )


def payment_routes(
    settings: Settings,
    stores: Stores,
    provider: PaymentProvider | None,
    callers: Callers,
    metrics: Metrics,
) -> dict[tuple[str, str], QuotaHandler]:
    """By method and path; none without a provider."""
    if provider is None:
        return {}
    records = Records(stores.directory, stores.sales, stores.orders, stores.store)
    shop = Shop(settings.plan, settings.refusal.upgrade_url)
    payments = Payments(records, provider, shop, stores.clock)

    async def signed_in(request: HttpRequest) -> Identity:
        return await callers.identities.again(callers.credential(request))

    handlers = PaymentHandlers(payments, signed_in, metrics)
    return {
        ("POST", "/quota/v1/topup"): handlers.topup,
        ("POST", "/quota/v1/payments/stripe"): handlers.event,
    }
