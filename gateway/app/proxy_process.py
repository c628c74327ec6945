"""One proxy worker: the flow put together, listening on the proxy port until told to stop.

On a reload it serves new calls by the new settings, while those under way end by the old. On
SIGTERM it is not ready any more and takes no new call; open ones may end, those that do not are
cut and settled, and every settlement is waited for. All of it within bounds (see `grace`): what is
left then is in the spill.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from typing import Any

from gateway.adapters.canary_metrics import CanaryMetrics
from gateway.adapters.prometheus_metrics import ProxyMetrics
from gateway.adapters.spill import SpillFiles
from gateway.adapters.tokenizer.bpe import BpeTokenizer
from gateway.app.arrangement import Arrangement
from gateway.app.canary import Canary
from gateway.app.children import Say
from gateway.app.configured import Configured
from gateway.app.grace import Grace
from gateway.app.loop_watch import LoopWatch
from gateway.app.outside import OpenUpstream, Outside, is_same_outside, open_outside
from gateway.app.process import SelfReport, answer_supervisor
from gateway.app.proxy_terms import bounds_of
from gateway.app.served import Lasting, Served
from gateway.app.signals import stop_signal
from gateway.app.stores import Stores as OpenStores
from gateway.app.stores import open_stores
from gateway.config import Settings
from gateway.ports.payments import PaymentProvider
from gateway.ports.quota_store import StoreUnavailable
from gateway.ports.tasks import spawn
from gateway.web.front import Front
from gateway.web.servers import Listener, listen_raw

_log = logging.getLogger("gateway.proxy")


def loaded_tokenizer(settings: Settings) -> BpeTokenizer:
    """A tokenizer with the vocabularies of all configured models, so that no call waits for one."""
    tokenizer = BpeTokenizer()
    load_vocabularies(tokenizer, settings)
    return tokenizer


def load_vocabularies(tokenizer: BpeTokenizer, settings: Settings) -> None:
    """Those of all configured models that are not loaded yet."""
    for encoding in {model.tokenizer for model in settings.models.values()}:
        tokenizer.load(encoding)


async def run_proxy(arrangement: Arrangement, name: str, tokenizer: BpeTokenizer, say: Say) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is open. The port is reserved."""
    stop, settings = stop_signal(), arrangement.settings
    metrics = ProxyMetrics(settings.models, settings.redis.mode)
    deadline_s = settings.redis.deadline_ms / 1000
    async with AsyncExitStack() as stack:
        spill = SpillFiles(settings.state_dir / "spill", name, metrics)
        stack.callback(spill.close)
        stores = await stack.enter_async_context(
            open_stores(settings, metrics, "proxy", deadline_s)
        )
        outside = open_outside(settings)
        stack.push_async_callback(outside.close)
        await stores.shards.join(secrets.token_hex(8))
        kept_in, through = (stores, spill), (outside.upstream, outside.provider)
        worker = Worker(settings, kept_in, metrics, tokenizer, through)
        stack.push_async_callback(worker.close)
        worker.settlements.take_over()
        address = settings.listen.proxy
        listener = await listen_raw(
            worker.front.handle, address.host, address.port, bounds_of(settings)
        )
        stack.push_async_callback(listener.close)
        configured = Configured(arrangement, worker.take)
        inside = await answer_supervisor(configured, name, SelfReport(metrics.render, worker.ready))
        stack.push_async_callback(inside.close)
        beats = spawn(worker.open_holds.beat_forever(), "heartbeat")
        looks = spawn(stores.shards.watch_forever(stores.unguarded), "watch shards")
        worker.renew_keys()
        lag = worker.loop_watch.start()
        worker.canary.begin(settings)
        say({"proxy": listener.url(address.host)})
        await stop.wait()
        await worker.finish(listener, Grace(settings.shutdown_s))
        for task in (beats, looks, lag):
            task.cancel()


class Worker:
    """The parts of one proxy worker that are needed after it was put together."""

    def __init__(
        self,
        settings: Settings,
        kept_in: tuple[OpenStores, SpillFiles],
        metrics: ProxyMetrics,
        tokenizer: BpeTokenizer,
        outside: tuple[OpenUpstream, PaymentProvider | None],
    ) -> None:
        self._settings, self._outside = settings, Outside(*outside)
        self._in_use = [self._outside]  # as often as configurations use it that still answer calls
        self._lasting = lasting = Lasting(settings, kept_in, metrics, tokenizer)
        self._store = lasting.stores.store
        self._renewing: asyncio.Task[None] | None = None
        self.loop_watch = LoopWatch(metrics.loop_lag.set)
        self.callers, self.identities = lasting.callers, lasting.callers.identities
        self.settlements, self.open_holds = lasting.settlements, lasting.open_holds
        self.canary = Canary(lasting, CanaryMetrics(metrics.registry))
        served = Served(settings, lasting, self._outside)
        self.admission = served.admission
        self.front = Front(served.parts, served.front_settings, (metrics, lasting.stores.clock))

    async def take(self, settings: Settings) -> None:
        """Serve calls by these settings from now on. UnfitProxy; then nothing has changed."""
        await asyncio.to_thread(load_vocabularies, self._lasting.tokenizer, settings)
        before, outside = self._outside, self._outside
        if not is_same_outside(self._settings, settings):
            outside = open_outside(settings)
        if self.callers.take(settings) and self._renewing is not None:
            self._renewing.cancel()
            self.renew_keys()
        self._lasting.take(settings)
        served = Served(settings, self._lasting, outside)
        self.admission = served.admission
        self._settings, self._outside = settings, outside
        self._in_use.append(outside)
        ended = self.front.take(served.parts, served.front_settings)
        self.canary.begin(settings)
        spawn(self._let_go(before, ended), "calls of the settings before")

    async def _let_go(self, outside: Outside, ended: Coroutine[Any, Any, None]) -> None:
        """Once the calls that began under one configuration have `ended`, what only they used."""
        await ended
        self._in_use.remove(outside)
        if outside not in self._in_use:
            await outside.close()

    def renew_keys(self) -> None:
        """Keep the issuers' keys as they have them from now on."""
        self._renewing = spawn(self.callers.renew_forever(), "renew keys of issuers")

    async def ready(self) -> Mapping[str, str]:
        """Postgres may be away without harm to traffic, so of the stores only Redis is asked."""
        checks = {"calls": "shutting down" if self.front.draining else "ok"}
        checks["loop"] = self.loop_watch.state()
        try:
            state = await self._store.shard_state(0)
        except StoreUnavailable as error:
            return checks | {"redis": str(error)}
        return checks | {"redis": "ok" if state.epoch else "shard 0 is not open"}

    async def finish(self, listener: Listener, grace: Grace) -> None:
        """Let open calls end, or cut them off from upstream, and their settlements be confirmed,
        within bounds."""
        self.canary.end()
        self.front.draining = True
        await listener.stop_accepting()
        if not await _ends(self.front.idle(), grace.calls_s):
            _log.warning("%d calls are cut: the time to end is over", len(self.open_holds))
            await self._for_all_outside(Outside.cut)
            if not await _ends(self.front.idle(), grace.last_words_s):
                listener.drop_clients()
                await _ends(self.front.idle(), grace.last_words_s)
        if not await _ends(self.settlements.confirmed(), grace.confirmed_s):
            _log.warning("stopping with %d settlements unconfirmed", self.settlements.unconfirmed)

    async def close(self) -> None:
        """Close what calls went out through, of whatever configuration."""
        if self._renewing is not None:
            self._renewing.cancel()
        await self._for_all_outside(Outside.close)

    async def _for_all_outside(self, work: Callable[[Outside], Awaitable[None]]) -> None:
        for outside in set(self._in_use):
            await work(outside)


async def _ends(waiting: Awaitable[None], within_s: float) -> bool:
    """Whether what is waited for came in time."""
    try:
        async with asyncio.timeout(within_s):
            await waiting
    except TimeoutError:
        return False
    return True
