"""The jobs process: drain, sweep, projection, upkeep, and the admin port.

A job that fails for a reason other than a store's absence ends the process, and the supervisor
starts it anew: everything done here may be done again. No request waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from dataclasses import replace

from gateway.adapters.prometheus_jobs_metrics import JobsMetrics
from gateway.adapters.prometheus_metrics import ProxyMetrics
from gateway.app.admin_desk import Admin
from gateway.app.arrangement import Arrangement
from gateway.app.children import Say
from gateway.app.configured import Configured
from gateway.app.grace import Grace
from gateway.app.jobs_work import Work
from gateway.app.process import SelfReport, answer_operators, answer_supervisor
from gateway.app.reloading import Reloading
from gateway.app.secrets_of_state import admin_socket
from gateway.app.signals import reload_signal, stop_signal
from gateway.app.stores import Stores, open_stores
from gateway.app.telling import about_sending, telling
from gateway.config import Settings
from gateway.jobs.drain import Drain, DrainTerms
from gateway.jobs.drift import Drift
from gateway.jobs.forget import Forget
from gateway.jobs.project import Projection
from gateway.jobs.reclaim import Reclaim
from gateway.jobs.service import Step
from gateway.jobs.sweep import Sweep, SweepTerms
from gateway.jobs.tier_shares import ShareTerms, TierSharing
from gateway.jobs.upkeep import Upkeep
from gateway.ports.ledger import LedgerUnavailable
from gateway.ports.quota_store import StoreUnavailable
from gateway.ports.tasks import spawn
from gateway.web.servers import listen_app, listen_unix

_log = logging.getLogger("gateway.jobs")


async def run_jobs(arrangement: Arrangement, say: Say, alone: bool) -> None:
    """Work until SIGTERM or SIGINT; then drain what the proxies left behind.

    `alone`: without a supervisor, which would reserve the admin port, answer operators and reload.
    """
    stop, settings, metrics = stop_signal(), arrangement.settings, JobsMetrics()
    # A step with both stores in order is shorter: the drain waits 1 s for events.
    step_s = drain_s = Grace(settings.shutdown_s).jobs_s / 2
    async with (
        open_stores(settings, ProxyMetrics(settings.models), "jobs") as stores,
        AsyncExitStack() as stack,
    ):
        work = Work(_steps(settings, stores, metrics), step_s, metrics.waits)
        admin = Admin(settings, stores, work.states)

        async def take(settings: Settings) -> None:
            await work.take(_steps(settings, stores, metrics))
            admin.take(settings)
            metrics.take(settings.plan.tiers)

        configured = Configured(arrangement, take)
        places = {"admin": await _answer_admin(stack, settings, admin, reserved=not alone)}
        report = SelfReport(metrics.render, work.states, lambda: about_sending(work.steps))
        inside = await answer_supervisor(configured, "jobs", report)
        stack.push_async_callback(inside.close)
        if alone:
            places["ops"] = await _be_alone(stack, configured, report, stop)
        work.start()  # every port is ours
        say(places)
        ends = [spawn(event.wait(), "end of the jobs") for event in (stop, work.failed)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        await work.stop()
        await _drain_the_rest(drain_of(configured.settings, stores, metrics), drain_s)
        stores.ledger.unlock_shards()
        stores.deliveries.unlock()


async def _answer_admin(
    stack: AsyncExitStack, settings: Settings, admin: Admin, reserved: bool
) -> str:
    """The admin API on its port, and on a socket for the commands of this state directory, which
    so never hand their token to whoever may listen on a port. Where the port is."""
    address = settings.listen.admin
    listener = await listen_app(admin.app(), address.host, address.port, reserved)
    stack.push_async_callback(listener.close)
    inside = await listen_unix(admin.app(), admin_socket(settings))
    stack.push_async_callback(inside.close)
    return listener.url(address.host)


async def _be_alone(
    stack: AsyncExitStack, configured: Configured, report: SelfReport, stop: asyncio.Event
) -> str:
    """Answer operators, and reload when told to, as a supervisor would; where the ops port is."""
    reloading = Reloading(configured.arrangement, configured.take)

    def render() -> bytes:
        return report.render() + reloading.render().encode()

    ops = await answer_operators(configured, replace(report, render=render))
    stack.push_async_callback(ops.close)
    stack.callback(reloading.start(reload_signal(stop)).cancel)
    return ops.url(configured.settings.listen.ops.host)


def _steps(settings: Settings, stores: Stores, metrics: JobsMetrics) -> list[Step]:
    return [drain_of(settings, stores, metrics), *_others(settings, stores, metrics)]


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
    told = telling(settings, stores, metrics)
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
        Drift(stores.agreement, stores.payers, metrics, stores.clock),
        *(told.steps if told is not None else ()),
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
