"""What the parts of a proxy worker take from the configuration, each in its own words.

Nothing is decided here: every value stands in the file, checked.
"""

from __future__ import annotations

from gateway.adapters.upstream.origin import Origin
from gateway.config import Settings
from gateway.core.inference.request import Dialect
from gateway.core.models import ModelTable
from gateway.flow.repeat import RepeatTerms
from gateway.flow.terms import OutageTerms, Terms
from gateway.web.cors import Cors
from gateway.web.front import FrontSettings
from gateway.web.proxy import ProxySettings
from gateway.web.servers import Bounds


def terms_of(settings: Settings) -> Terms:
    """The terms under which calls run."""
    return Terms(
        plan=settings.plan,
        models=ModelTable(settings.models.values()),
        prices=settings.prices,
        dialects={
            name: Dialect(each.stream_usage, each.output_cap, each.store)
            for name, each in settings.upstreams.items()
        },
        upgrade_url=settings.refusal.upgrade_url,
        topup_url=settings.refusal.topup_url,
        lease_ms=settings.lease.ms,
        heartbeat_ms=settings.lease.heartbeat_ms,
        stream_max_s=settings.lease.stream_max_s,
        drain_s=settings.client_gone.drain_s,
        drains_max=settings.client_gone.drains_max,
        # A gateway's worth is shared out among its workers, who do not know of each other.
        outage=OutageTerms(settings.redis.mode, settings.redis.outage_tokens // settings.workers),
    )


def origins_of(settings: Settings) -> dict[str, Origin]:
    """Where the upstreams are, by name, their keys unwrapped."""
    return {
        name: Origin(
            base_url=each.base_url,
            api_key=each.api_key.reveal(),
            connect_s=each.connect_s,
            idle_s=each.idle_s,
            user_header=each.user_header,
            auth=each.auth,
            api_version=each.api_version,
        )
        for name, each in settings.upstreams.items()
    }


def proxy_settings_of(settings: Settings, terms: Terms) -> ProxySettings:
    """What the web side needs."""
    return ProxySettings(
        plan=terms.plan,
        models=terms.models,
        body_bytes_max=settings.listen.body_bytes_max,
        cors=Cors(settings.cors_origins),
    )


def front_settings_of(settings: Settings) -> FrontSettings:
    """What all of the proxy port needs."""
    return FrontSettings(settings.plan.thresholds_percent, Cors(settings.cors_origins))


def bounds_of(settings: Settings) -> Bounds:
    """What clients may take."""
    clients = settings.clients
    return Bounds(
        request_s=clients.request_s,
        unread_s=clients.unread_s,
        connections_max=clients.connections_max,
        per_peer_max=clients.per_peer_max,
    )


def repeat_terms_of(settings: Settings) -> RepeatTerms:
    """A key is taken as long as the hold of its call: both end when nobody renews them."""
    lease, idempotency = settings.lease, settings.idempotency
    return RepeatTerms(
        keep_ms=idempotency.keep_s * 1000,
        answer_bytes_max=idempotency.answer_kib_max * 1024,
        running_ms=lease.ms + lease.grace_ms,
        renew_ms=lease.heartbeat_ms,
    )
