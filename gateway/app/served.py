"""What a proxy worker serves: what lasts as long as the process, and what hangs on its settings.

`Lasting` knows what calls have left behind: open holds, settlements, users, counts. `Served` is
made anew for each configuration, for the calls that begin under it; those that began before end
with what they began with, so nothing in it may be changed later. Neither opens anything.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.adapters.prometheus_metrics import ProxyMetrics
from gateway.adapters.spill import SpillFiles
from gateway.adapters.tokenizer.bpe import BpeTokenizer
from gateway.app.callers import KnownCallers
from gateway.app.outside import Outside
from gateway.app.payments import payment_routes
from gateway.app.proxy_terms import (
    front_settings_of,
    proxy_settings_of,
    repeat_terms_of,
    terms_of,
)
from gateway.app.quota_routes import preference_calls, quota_calls, quota_routes
from gateway.app.secrets_of_state import pepper_of
from gateway.app.stores import Stores as OpenStores
from gateway.config import Settings
from gateway.flow.admit import Admission, Stores
from gateway.flow.estimate import Estimator
from gateway.flow.exchange import Exchange
from gateway.flow.first_refusals import FirstRefusals
from gateway.flow.free import FreeExchange
from gateway.flow.open_holds import OpenHolds
from gateway.flow.prompt_count import PromptCounter
from gateway.flow.relay import Drains, RelayServices
from gateway.flow.repeat import Repeats
from gateway.flow.settlements import Settlements
from gateway.flow.terms import Terms
from gateway.ports.metrics import Metrics
from gateway.ports.payments import PaymentProvider
from gateway.ports.upstream import Upstream
from gateway.web.callers import Callers
from gateway.web.front import Part
from gateway.web.proxy import Proxy
from gateway.web.quota_api import PREFIX, QuotaApi
from gateway.web.status_page import BEGINNING, StatusPage


class Lasting:
    """The parts of a worker that outlive a configuration."""

    def __init__(
        self,
        settings: Settings,
        kept_in: tuple[OpenStores, SpillFiles],
        metrics: ProxyMetrics,
        tokenizer: BpeTokenizer,
    ) -> None:
        stores, spill = kept_in
        self.stores, self.metrics = stores, metrics
        self.tokenizer = tokenizer
        self.prompts = PromptCounter(tokenizer)
        self.callers = KnownCallers(settings, stores)
        self.settlements = Settlements(
            stores.store,
            stores.shards,
            (stores.recent, spill),
            settings.plan.thresholds_percent,
            metrics,
        )
        stores.when_redis_back.append(self.settlements.pauses.end)
        terms = terms_of(settings)
        self.open_holds = OpenHolds(
            stores.store, stores.shards, self.settlements, terms, stores.clock
        )
        self.drains = Drains(terms.drains_max)
        self.first_refusals = FirstRefusals(stores.notices)

    def take(self, settings: Settings) -> None:
        """Go on under these settings; nothing that is open or counted is lost."""
        terms = terms_of(settings)
        self.settlements.take(settings.plan.thresholds_percent)
        self.open_holds.take(terms)
        self.drains.drains_max = terms.drains_max
        self.metrics.take(settings.models, settings.redis.mode)

    def of_admission(self) -> Stores:
        """What admission reads and writes."""
        return Stores(
            store=self.stores.store,
            directory=self.stores.directory,
            shards=self.stores.shards,
            hydrator=self.stores.hydrator,
            identities=self.callers.identities,
            settlements=self.settlements,
            first_refusals=self.first_refusals,
        )


@dataclass(frozen=True, slots=True)
class Ground:
    """On what calls are served under one configuration. `callers`: who they come from; `metrics`:
    where they are counted."""

    settings: Settings
    lasting: Lasting
    stores: Stores
    terms: Terms
    upstream: Upstream
    callers: Callers
    metrics: Metrics

    def admission(self) -> Admission:
        """What holds their tokens, or refuses them."""
        clock = self.lasting.stores.clock
        return Admission(self.stores, self.terms, self.lasting.prompts, clock)

    def proxy(self, admission: Admission) -> Proxy:
        """What relays them, once they are admitted."""
        settings, lasting, terms = self.settings, self.lasting, self.terms
        services = RelayServices(
            settlements=lasting.settlements,
            estimator=Estimator(lasting.prompts, terms.models),
            drains=lasting.drains,
            terms=terms,
        )
        observers = (self.metrics, lasting.stores.clock)
        exchange = Exchange(admission, self.upstream, lasting.open_holds, services, observers)
        answers, repeat_terms = lasting.stores.answers, repeat_terms_of(settings)
        return Proxy(
            Repeats(exchange, self.stores.identities, answers, repeat_terms, self.metrics),
            FreeExchange(self.upstream, terms.models, self.metrics),
            self.callers,
            proxy_settings_of(settings, terms),
            self.metrics,
        )


class Served:
    """The flow under one configuration. `parts` answer for it, by the beginning of a path."""

    def __init__(self, settings: Settings, lasting: Lasting, outside: Outside) -> None:
        ground = Ground(
            settings=settings,
            lasting=lasting,
            stores=lasting.of_admission(),
            terms=terms_of(settings),
            upstream=outside.upstream,
            callers=lasting.callers.shown,
            metrics=lasting.metrics,
        )
        self.admission = ground.admission()
        self.front_settings = front_settings_of(settings)
        self.parts: dict[str, Part] = {
            "": ground.proxy(self.admission),
            PREFIX: _quota_api(ground, outside.provider),
            BEGINNING: StatusPage(settings.frame_origins),
        }


def _quota_api(ground: Ground, provider: PaymentProvider | None) -> QuotaApi:
    opened, metrics, shown = ground.lasting.stores, ground.metrics, ground.callers
    calls = quota_calls(opened, ground.stores, shown, ground.terms, metrics)
    pepper = pepper_of(ground.settings)
    preferences = preference_calls(opened, ground.stores, shown, pepper, metrics)
    payments = payment_routes(ground.settings, opened, provider, shown, metrics)
    return QuotaApi(quota_routes(calls, preferences, payments))
