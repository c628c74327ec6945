"""The jobs process: drain, sweep, projection, upkeep, and the admin port.

A job that fails for a reason other than a store's absence ends the process, and the supervisor
starts it anew: everything done here may be done again. No request waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from gateway.adapters.prometheus_metrics import JobsMetrics, ProxyMetrics
from gateway.app.children import Say
from gateway.app.grace import Grace
from gateway.app.process import answer_operators, answer_supervisor
from gateway.app.secrets_of_state import admin_token_of
from gateway.app.shown import shown_user
from gateway.app.signals import stop_signal
from gateway.app.stores import Stores, open_stores
from gateway.config import Settings
from gateway.flow.accounts import Accounts
from gateway.jobs.drain import Drain, DrainTerms
from gateway.jobs.forget import Forget
from gateway.jobs.project import Projection
from gateway.jobs.service import Step, run_forever, stop_between_steps
from gateway.jobs.sweep import Sweep, SweepTerms
from gateway.jobs.upkeep import Upkeep
from gateway.ports.ledger import Conflict, LedgerUnavailable
from gateway.ports.quota_store import StoreUnavailable
from gateway.ports.tasks import spawn
from gateway.web.admin import admin_app
from gateway.web.servers import listen_app

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
        address = settings.listen.admin
        admin = await listen_app(
            admin_app(
                admin_token_of(settings),
                _show(stores.accounts(settings), settings, stores.clock.now_ms),
            ),
            address.host,
            address.port,
            reserved=not alone,
        )

        async def ready() -> Mapping[str, str]:
            return {task.get_name(): "failed" if task.done() else "ok" for task in running}

        inside = await answer_supervisor(settings, "jobs", metrics.render, ready)
        places = {"admin": admin.url(address.host)}
        if alone:
            ops = await answer_operators(settings, metrics.render, ready)
            places["ops"] = ops.url(settings.listen.ops.host)
        turns = [asyncio.Lock() for _ in steps]
        running.extend(
            spawn(run_forever(step, turn), step.name)
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
        await admin.close()
        await inside.close()


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
        Projection(stores.directory, stores.store, stores.clock),
        Forget(stores.leases, stores.store),
        Upkeep(stores.ledger, settings.plan.tiers, metrics, stores.clock),
    ]


async def _drain_the_rest(drain: Drain, within_s: float) -> None:
    """What is not drained now is drained at the next start."""
    try:
        async with asyncio.timeout(within_s):
            await drain.drain_all()
    except (StoreUnavailable, LedgerUnavailable, TimeoutError) as error:
        _log.warning("the outbox was not drained to its end: %s", error)


def _show(accounts: Accounts, settings: Settings, now_ms: Callable[[], int]) -> Any:
    async def show(user_id: str) -> dict[str, Any] | None:
        try:
            identity, snapshot = await accounts.show(user_id)
        except Conflict:
            return None
        return shown_user(identity, snapshot, settings.plan, now_ms())

    return show
