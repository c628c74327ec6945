"""The canary's way through the gateway: the flow of every call, with a tier and a model of its own.

Its calls are HTTP, read by the same server, run under the terms that are configured, decided by the
same Redis and settled by the same settlements. Its key, tier, model, price and upstream are known
to nobody else, so that no caller can use them and no list shows them; its decisions are in no
metric of callers.
"""

from __future__ import annotations

from dataclasses import replace

from gateway.adapters.canary_upstream import CanaryUpstream
from gateway.adapters.prometheus_metrics import ProxyMetrics
from gateway.app.proxy_terms import front_settings_of, terms_of
from gateway.app.secrets_of_state import pepper_of
from gateway.app.served import Ground, Lasting
from gateway.config import Settings
from gateway.core.canary import LIMIT_TOKENS, MODEL, TIER, USER
from gateway.core.identity import Identity, key_digest
from gateway.core.inference.request import Dialect
from gateway.core.models import Model, ModelTable, Weights
from gateway.core.period import Calendar
from gateway.core.plan import Tier
from gateway.core.pricing import DEFAULT_LINE, Price, PriceTable, PriceVersion
from gateway.flow.first_refusals import FirstRefusals
from gateway.flow.identify import Identities
from gateway.flow.terms import Terms
from gateway.ports.notices import Exhaustion
from gateway.web.callers import Callers
from gateway.web.front import Front

_UPSTREAM = "canary"
_IDENTITY = Identity(USER, USER, TIER, 0, Calendar(1, "UTC"))
_FREE = Price("canary", 0, 0, 0)


class _OneKey:
    """Fulfils ports.directory.Keys: there is one key, made for this process."""

    def __init__(self, digest: bytes) -> None:
        self._digest = digest

    async def identity_of_key(self, digest: bytes) -> Identity | None:
        return _IDENTITY if digest == self._digest else None


class _Untold:
    """Fulfils ports.notices.Exhaustions: that the canary is refused is news to nobody."""

    async def exhausted(self, told: Exhaustion) -> None:
        return


def canary_front(settings: Settings, lasting: Lasting, key: str) -> Front:
    """The handler of the canary's calls, which show this key."""
    pepper = pepper_of(settings)
    identities = Identities(_OneKey(key_digest(key, pepper)), pepper)
    unheard = FirstRefusals(_Untold())
    ground = Ground(
        settings=settings,
        lasting=lasting,
        stores=replace(lasting.of_admission(), identities=identities, first_refusals=unheard),
        terms=_terms(settings),
        upstream=CanaryUpstream(),
        callers=Callers(identities, None),
        metrics=ProxyMetrics(()),
    )
    observers = (ground.metrics, lasting.stores.clock)
    return Front({"": ground.proxy(ground.admission())}, front_settings_of(settings), observers)


def _terms(settings: Settings) -> Terms:
    """Those of all callers, but for what there is to be had. Its prompt is counted in a vocabulary
    that is loaded anyway."""
    tier = Tier(TIER, LIMIT_TOKENS, None, shadow=False, packs=None, models=(MODEL,))
    tokenizer = next(iter(settings.models.values())).tokenizer
    model = Model(
        name=MODEL,
        upstream=_UPSTREAM,
        tokenizer=tokenizer,
        context_tokens=LIMIT_TOKENS,
        output_tokens_max=LIMIT_TOKENS,
        output_tokens_default=LIMIT_TOKENS,
        output_tokens_min=LIMIT_TOKENS,  # so that no cap of its is ever lowered
        weights=Weights(),
    )
    lines = {MODEL: _FREE, DEFAULT_LINE: replace(_FREE, is_default=True)}
    return replace(
        terms_of(settings),
        plan=replace(settings.plan, tiers={TIER: tier}, default_tier=TIER),
        models=ModelTable((model,)),
        prices=PriceTable((PriceVersion("canary", 0, lines),)),
        dialects={_UPSTREAM: Dialect()},
    )
