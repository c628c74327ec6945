"""One proxy worker: the flow put together, listening on the proxy port until told to stop.

On SIGTERM it is not ready any more and takes no new call; open ones may end, those that do not are
cut and settled, and every settlement is waited for. All of it within bounds (see `grace`): what is
left then is in the spill.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack

from gateway.adapters.prometheus_metrics import ProxyMetrics
from gateway.adapters.spill import SpillFiles
from gateway.adapters.tokenizer.bpe import BpeTokenizer
from gateway.adapters.upstream.opening import open_upstream
from gateway.app.callers import KnownCallers
from gateway.app.children import Say
from gateway.app.grace import Grace
from gateway.app.loop_watch import LoopWatch
from gateway.app.payments import open_provider, payment_routes
from gateway.app.process import answer_supervisor
from gateway.app.proxy_terms import (
    bounds_of,
    front_settings_of,
    origins_of,
    proxy_settings_of,
    repeat_terms_of,
    terms_of,
)
from gateway.app.quota_routes import preference_calls, quota_calls, quota_routes
from gateway.app.secrets_of_state import pepper_of
from gateway.app.signals import stop_signal
from gateway.app.stores import Stores as OpenStores
from gateway.app.stores import open_stores
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
from gateway.ports.payments import PaymentProvider
from gateway.ports.quota_store import StoreUnavailable
from gateway.ports.tasks import spawn
from gateway.ports.upstream import Upstream
from gateway.web.front import Front, Part
from gateway.web.proxy import Proxy
from gateway.web.quota_api import PREFIX, QuotaApi
from gateway.web.servers import Listener, listen_raw
from gateway.web.status_page import BEGINNING, StatusPage

_log = logging.getLogger("gateway.proxy")


def loaded_tokenizer(settings: Settings) -> BpeTokenizer:
    """A tokenizer with the vocabularies of all configured models, so that no call waits for one."""
    tokenizer = BpeTokenizer()
    for encoding in {model.tokenizer for model in settings.models.values()}:
        tokenizer.load(encoding)
    return tokenizer


async def run_proxy(settings: Settings, name: str, tokenizer: BpeTokenizer, say: Say) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is open. The port is reserved."""
    stop = stop_signal()
    metrics = ProxyMetrics(settings.models, settings.redis.mode)
    deadline_s = settings.redis.deadline_ms / 1000
    async with AsyncExitStack() as stack:
        spill = SpillFiles(settings.state_dir / "spill", name, metrics)
        stack.callback(spill.close)
        stores = await stack.enter_async_context(
            open_stores(settings, metrics, "proxy", deadline_s)
        )
        upstream = open_upstream(origins_of(settings))
        stack.push_async_callback(upstream.close)
        provider = open_provider(settings)
        if provider is not None:
            stack.push_async_callback(provider.close)
        await stores.shards.join(secrets.token_hex(8))
        worker = Worker(settings, (stores, spill), metrics, tokenizer, (upstream, provider))
        worker.settlements.take_over()
        address = settings.listen.proxy
        listener = await listen_raw(
            worker.front.handle, address.host, address.port, bounds_of(settings)
        )
        stack.push_async_callback(listener.close)
        inside = await answer_supervisor(settings, name, metrics.render, worker.ready)
        stack.push_async_callback(inside.close)
        beats = spawn(worker.open_holds.beat_forever(), "heartbeat")
        looks = spawn(stores.shards.watch_forever(stores.unguarded), "watch shards")
        keys = spawn(worker.callers.renew_forever(), "renew keys of issuers")
        lag = worker.loop_watch.start()
        say({"proxy": listener.url(address.host)})
        await stop.wait()
        await worker.finish(listener, upstream.close, Grace(settings.shutdown_s))
        for task in (beats, looks, keys, lag):
            task.cancel()


class Worker:
    """The parts of one proxy worker that are needed after it was put together."""

    def __init__(
        self,
        settings: Settings,
        kept_in: tuple[OpenStores, SpillFiles],
        metrics: ProxyMetrics,
        tokenizer: BpeTokenizer,
        outside: tuple[Upstream, PaymentProvider | None],
    ) -> None:
        (stores, spill), (upstream, provider) = kept_in, outside
        self._store = stores.store
        self.loop_watch = LoopWatch(metrics.loop_lag.set)
        self._terms = terms = terms_of(settings)
        self.callers = KnownCallers(settings, stores)
        self.identities = self.callers.identities
        self.settlements = Settlements(
            stores.store,
            stores.shards,
            (stores.recent, spill),
            settings.plan.thresholds_percent,
            metrics,
        )
        stores.when_redis_back.append(self.settlements.pauses.end)
        self.open_holds = OpenHolds(
            stores.store, stores.shards, self.settlements, terms, stores.clock
        )
        prompts = PromptCounter(tokenizer)
        of_admission = self._of_admission(stores)
        self.admission = Admission(of_admission, terms, prompts, stores.clock)
        services = RelayServices(
            settlements=self.settlements,
            estimator=Estimator(prompts, terms.models),
            drains=Drains(terms.drains_max),
            terms=terms,
        )
        observers = (metrics, stores.clock)
        exchange = Exchange(self.admission, upstream, self.open_holds, services, observers)
        proxy = Proxy(
            Repeats(exchange, self.identities, stores.answers, repeat_terms_of(settings), metrics),
            FreeExchange(upstream, terms.models, metrics),
            self.callers.shown,
            proxy_settings_of(settings, terms),
            metrics,
        )
        of_quota = self._of_quota(settings, (stores, of_admission), provider, metrics)
        page = StatusPage(settings.frame_origins)
        parts: dict[str, Part] = {"": proxy, PREFIX: of_quota, BEGINNING: page}
        self.front = Front(parts, front_settings_of(settings), observers)

    def _of_quota(
        self,
        settings: Settings,
        opened: tuple[OpenStores, Stores],
        provider: PaymentProvider | None,
        metrics: ProxyMetrics,
    ) -> QuotaApi:
        (stores, of_admission), shown = opened, self.callers.shown
        calls = quota_calls(stores, of_admission, shown, self._terms, metrics)
        pepper = pepper_of(settings)
        preferences = preference_calls(stores, of_admission, shown, pepper, metrics)
        payments = payment_routes(settings, stores, provider, shown, metrics)
        return QuotaApi(quota_routes(calls, preferences) | payments)

    def _of_admission(self, stores: OpenStores) -> Stores:
        return Stores(
            store=stores.store,
            directory=stores.directory,
            shards=stores.shards,
            hydrator=stores.hydrator,
            identities=self.identities,
            settlements=self.settlements,
            first_refusals=FirstRefusals(stores.notices),
        )

    async def ready(self) -> Mapping[str, str]:
        """Postgres may be away without harm to traffic, so of the stores only Redis is asked."""
        checks = {"calls": "shutting down" if self.front.draining else "ok"}
        checks["loop"] = self.loop_watch.state()
        try:
            state = await self._store.shard_state(0)
        except StoreUnavailable as error:
            return checks | {"redis": str(error)}
        return checks | {"redis": "ok" if state.epoch else "shard 0 is not open"}

    async def finish(
        self, listener: Listener, cut: Callable[[], Awaitable[None]], grace: Grace
    ) -> None:
        """Let open calls end, or `cut` them off from upstream, and their settlements be confirmed,
        within bounds."""
        self.front.draining = True
        await listener.stop_accepting()
        if not await _ends(self.front.idle(), grace.calls_s):
            _log.warning("%d calls are cut: the time to end is over", len(self.open_holds))
            await cut()
            if not await _ends(self.front.idle(), grace.last_words_s):
                listener.drop_clients()
                await _ends(self.front.idle(), grace.last_words_s)
        if not await _ends(self.settlements.confirmed(), grace.confirmed_s):
            _log.warning("stopping with %d settlements unconfirmed", self.settlements.unconfirmed)


async def _ends(waiting: Awaitable[None], within_s: float) -> bool:
    """Whether what is waited for came in time."""
    try:
        async with asyncio.timeout(within_s):
            await waiting
    except TimeoutError:
        return False
    return True
