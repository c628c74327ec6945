"""The routes of `/quota/v1`, put together: each by method and path, with what answers it.

Whoever adds one to the table opens it; what is not here is refused.
"""

from __future__ import annotations

from gateway import __version__
from gateway.app.stores import Stores as OpenStores
from gateway.core.identity import Identity
from gateway.core.quota.reserve import Limits
from gateway.flow.admit import Stores
from gateway.flow.asking import Asking
from gateway.flow.elsewhere import Elsewhere, ElsewhereParts
from gateway.flow.entitled import Entitlements
from gateway.flow.identify import backend_unavailable
from gateway.flow.limits import Bindings
from gateway.flow.standing import Standings
from gateway.flow.subjects import Subjects
from gateway.flow.terms import Terms
from gateway.flow.wishes import Wishes
from gateway.ports.metrics import Metrics
from gateway.web.callers import Callers
from gateway.web.preferences import PreferenceCalls, PreferenceParts
from gateway.web.quota_api import PREFIX, QuotaHandler
from gateway.web.quota_calls import QuotaCalls, QuotaFlow
from gateway.web.quota_openapi import OPENAPI_PATH, openapi_handler

Routes = dict[tuple[str, str], QuotaHandler]


def quota_routes(calls: QuotaCalls, preferences: PreferenceCalls, payments: Routes) -> Routes:
    """Every open route; those of payments where there is a provider."""
    routes: Routes = {
        ("GET", f"{PREFIX}preferences"): preferences.read,
        ("PUT", f"{PREFIX}preferences"): preferences.change,
        ("GET", f"{PREFIX}unsubscribe"): preferences.ask_off,
        ("POST", f"{PREFIX}unsubscribe"): preferences.turn_off,
        ("POST", f"{PREFIX}usage"): calls.usage,
        ("POST", f"{PREFIX}check"): calls.check,
        ("GET", f"{PREFIX}status"): calls.status,
        **payments,
    }
    routes["GET", OPENAPI_PATH] = openapi_handler(tuple(routes), __version__)
    return routes


def quota_calls(
    opened: OpenStores, stores: Stores, callers: Callers, terms: Terms, metrics: Metrics
) -> QuotaCalls:
    """What answers about usage, on the stores that admission has."""
    clock, bindings = opened.clock, Bindings(terms.plan)

    def limits_of(identity: Identity) -> Limits:
        if identity.tier not in terms.plan.tiers:
            raise backend_unavailable(f"the terms of tier '{identity.tier}'")
        return bindings.of(identity, clock.now_ms()).limits

    subjects = Subjects(stores.identities, stores.directory)
    entitlements = Entitlements(stores.identities, stores.directory, stores.store, terms)
    asking = Asking(stores, entitlements, subjects, limits_of, clock)
    parts = ElsewhereParts(
        asking,
        entitlements,
        subjects,
        stores.settlements,
        opened.answers,
        stores.first_refusals,
    )
    flow = QuotaFlow(
        callers=callers,
        subjects=subjects,
        elsewhere=Elsewhere(parts, terms, metrics, clock),
        standings=Standings(stores, opened.history, limits_of, clock),
    )
    return QuotaCalls(flow, terms, metrics, clock)


def preference_calls(
    opened: OpenStores, stores: Stores, callers: Callers, pepper: bytes, metrics: Metrics
) -> PreferenceCalls:
    """What answers about mails that are wanted."""
    subjects = Subjects(stores.identities, stores.directory)
    wishes = Wishes(opened.notices, pepper)
    return PreferenceCalls(PreferenceParts(callers, subjects, wishes, metrics))
