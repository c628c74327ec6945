"""The jobs process: drain, sweep, projection, upkeep, and the admin port.

A job that fails for a reason other than a store's absence ends the process, and the supervisor
starts it anew: everything done here may be done again. No request waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from gateway.adapters.prometheus_jobs_metrics import JobsMetrics
from gateway.adapters.prometheus_metrics import ProxyMetrics
from gateway.app.admin_desk import admin_of
from gateway.app.children import Say
from gateway.app.grace import Grace
from gateway.app.process import answer_operators, answer_supervisor
from gateway.app.secrets_of_state import admin_socket
from gateway.app.signals import stop_signal
from gateway.app.stores import Stores, open_stores
from gateway.app.telling import telling
from gateway.config import Settings
from gateway.jobs.drain import Drain, DrainTerms
from gateway.jobs.forget import Forget
from gateway.jobs.project import Projection
from gateway.jobs.reclaim import Reclaim
from gateway.jobs.service import Step, run_forever, stop_between_steps
from gateway.jobs.sweep import Sweep, SweepTerms
from gateway.jobs.tier_shares import ShareTerms, TierSharing
from gateway.jobs.upkeep import Upkeep
from gateway.ports.ledger import LedgerUnavailable
from gateway.ports.quota_store import StoreUnavailable
from gateway.ports.tasks import spawn
from gateway.web.admin.plan import Health
from gateway.web.servers import Listener, listen_app, listen_unix

_log = logging.getLogger("gateway.jobs")


async def run_jobs(settings: Settings, say: Say, alone: bool) -> None:
    """Work until SIGTERM or SIGINT; then drain what the proxies left behind.

    `alone`: without a supervisor, which would reserve the admin port and answer operators.
    """
    stop = stop_signal()
    metrics = JobsMetrics()
    # A step with both stores in order is shorter: the drain waits 1 s for events.
    step_s = drain_s = Grace(settings.shutdown_s).jobs_s / 2
    async with open_stores(settings, ProxyMetrics(settings.models), "jobs") as stores:
        drain = drain_of(settings, stores, metrics)
        steps: list[Step] = [drain, *_others(settings, stores, metrics)]
        running: list[asyncio.Task[None]] = []  # begun once every port is ours

        async def ready() -> Mapping[str, str]:
            return {task.get_name(): "failed" if task.done() else "ok" for task in running}

        admin, *insides = await _answer_admin(settings, stores, ready, reserved=not alone)
        insides.append(await answer_supervisor(settings, "jobs", metrics.render, ready))
        places = {"admin": admin.url(settings.listen.admin.host)}
        if alone:
            ops = await answer_operators(settings, metrics.render, ready)
            places["ops"] = ops.url(settings.listen.ops.host)
        turns = [asyncio.Lock() for _ in steps]
        running.extend(
            spawn(run_forever(step, turn, metrics.waits), step.name)
            for step, turn in zip(steps, turns, strict=True)
        )
        say(places)
        stopped = spawn(stop.wait(), "stop")
        await asyncio.wait([stopped, *running], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.gather(
            *(
                stop_between_steps(task, turn, step_s)
                for task, turn in zip(running, turns, strict=True)
            )
        )
        await _drain_the_rest(drain, drain_s)
        stores.ledger.unlock_shards()
        stores.deliveries.unlock()
        for listener in (admin, *insides):
            await listener.close()


async def _answer_admin(
    settings: Settings, stores: Stores, ready: Health, reserved: bool
) -> list[Listener]:
    """The admin API on its port, and on a socket for the commands of this state directory, which
    so never hand their token to whoever may listen on a port."""
    address = settings.listen.admin
    listener = await listen_app(
        admin_of(settings, stores, ready), address.host, address.port, reserved
    )
    inside = await listen_unix(admin_of(settings, stores, ready), admin_socket(settings))
    return [listener, inside]


def drain_of(settings: Settings, stores: Stores, metrics: JobsMetrics) -> Drain:
    """The drain of these stores."""
    terms = DrainTerms(
        shards=settings.redis.shards,
        retain_s=settings.ledger.retain_s,
        retain_bytes=settings.ledger.retain_mib * 2**20,
    )
    return Drain(stores.streams, (stores.store, stores.ledger), terms, metrics, stores.clock)


def _others(settings: Settings, stores: Stores, metrics: JobsMetrics) -> list[Step]:
    sweep_terms = SweepTerms(
        shards=settings.redis.shards,
        grace_ms=settings.lease.grace_ms,
        prices=settings.prices,
        thresholds_percent=settings.plan.thresholds_percent,
    )
    return [
        Sweep(stores.leases, stores.store, sweep_terms, metrics, stores.clock),
        Projection(stores.directory, stores.store, stores.streams, stores.clock),
        Reclaim(stores.sales, stores.clock),
        Forget(stores.leases, stores.store),
        Upkeep(stores.ledger, _not_capped(settings), metrics, stores.clock),
        TierSharing(
            stores.shares,
            (stores.ledger, stores.tier_ledger),
            ShareTerms(settings.plan, settings.redis.shards),
            metrics,
            stores.clock,
        ),
        *telling(settings, stores, metrics),
    ]


def _not_capped(settings: Settings) -> list[str]:
    """What capped tiers have used is shown by whoever hands out their caps."""
    return [name for name, tier in settings.plan.tiers.items() if tier.tier_tokens is None]


async def _drain_the_rest(drain: Drain, within_s: float) -> None:
    """What is not drained now is drained at the next start."""
    try:
        async with asyncio.timeout(within_s):
            await drain.drain_all()
    except (StoreUnavailable, LedgerUnavailable, TimeoutError) as error:
        _log.warning("the outbox was not drained to its end: %s", error)
