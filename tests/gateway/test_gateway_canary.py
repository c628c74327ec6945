"""The canary of a real gateway: it sees that the quota is enforced, and when it is not."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from gateway.adapters.canary_metrics import CanaryMetrics
from gateway.adapters.postgres.connection import open_pool
from gateway.adapters.postgres.reports import ExportFilter
from gateway.adapters.prometheus_metrics import ProxyMetrics
from gateway.adapters.spill import SpillFiles
from gateway.adapters.tokenizer.bpe import BpeTokenizer
from gateway.app.canary import Canary, asking, prove
from gateway.app.embedded import ledger_url_of, redis_url_of
from gateway.app.served import Lasting
from gateway.app.stores import Stores
from gateway.core.canary import USER, Finding
from gateway.core.quota.reserve import ReserveAsk
from tests.frozen_redis import frozen
from tests.gateway.loopback import ask
from tests.gateway.running_gateway import RunningGateway, prompt, running_gateway
from tests.gateway.standin_process import StandInProcess
from tests.gateway.waiting_for import until

WAIT_S = 40.0
TOO_LARGE = "a call that fits was not admitted: 400 request_exceeds_quota (refused)"


@pytest.fixture(scope="module")
def watched(other_stand_in: StandInProcess) -> Iterator[RunningGateway]:
    """Two workers that look every second, and let everything through without Redis."""
    changes = {"canary": {"every_s": 1}, "workers": 2, "redis": {"mode": "open"}}
    with running_gateway(other_stand_in, changes) as running:
        yield running


def rounds(gateway: RunningGateway, result: str) -> float:
    return gateway.metric("canary_rounds_total", result=result)


def is_ok(gateway: RunningGateway) -> bool:
    return gateway.metric("canary_ok") == 1


def booked(gateway: RunningGateway) -> list[Any]:
    """The canary's rows, once the ledger has all that is in Redis."""

    async def read(stores: Stores) -> list[Any]:
        return [row async for row in stores.reports.export(ExportFilter(user_id=USER))]

    assert gateway.cli("ledger", "verify")["agrees"]
    return gateway.in_stores(read)


def all_is_well(gateway: RunningGateway) -> None:
    """Every worker says so, in rounds that began now."""
    enough = rounds(gateway, "proven") + 4
    until(lambda: rounds(gateway, "proven") >= enough, WAIT_S, "rounds that prove")
    until(lambda: is_ok(gateway), WAIT_S, "the canary to be well")


def test_what_is_enforced_is_proven_each_round_and_costs_a_row_a_period(
    watched: RunningGateway,
) -> None:
    all_is_well(watched)
    assert not rounds(watched, "broken")
    rows = booked(watched)
    assert 1 <= len(rows) <= 2, "a row, and one more where both workers found nothing spent"
    for row in rows:
        assert (row["user_id"], row["tier"], row["charged_tokens"]) == (USER, "canary", 1001)
        assert row["cost_nano_gbp"] == 0
    assert watched.metric("decisions_total") == 0
    assert not watched.metric("unpriced_total")
    assert "canary" not in watched.stderr.read_text()
    all_is_well(watched)
    assert booked(watched) == rows


def test_nobody_meets_the_canary(watched: RunningGateway) -> None:
    _, key = watched.new_user("free")
    refused = watched.chat(key, prompt("Hello", model="quota-canary"))
    assert (refused.status, refused.json["error"]["code"]) == (403, "model_not_allowed")
    models = ask(f"{watched.proxy}/v1/models", headers={"Authorization": f"Bearer {key}"})
    assert "canary" not in models.text
    assert "canary" not in str(watched.cli("user", "list"))
    all_is_well(watched)
    assert watched.metric("tier_used_tokens", tier="canary") == 0

    async def of_all_time(stores: Stores) -> str:
        return str(await stores.reports.booked(0, 2**42))

    assert booked(watched)
    assert "canary" not in watched.in_stores(of_all_time), "finance reads what callers used"


def test_without_redis_nothing_is_proven_and_with_it_all_is_well_again(
    watched: RunningGateway,
) -> None:
    all_is_well(watched)
    rows = booked(watched)
    with frozen(redis_url_of(watched.settings)):
        until(lambda: not is_ok(watched), WAIT_S, "the canary to notice")
        said = until(lambda: watched.stderr.read_text(), WAIT_S, "a line in the log")
        assert "nothing proves that the quota is enforced" in said
    until(lambda: is_ok(watched), WAIT_S, "the canary to be well")
    assert "proven to be enforced again" in watched.stderr.read_text()
    assert not rounds(watched, "broken")
    assert booked(watched) == rows, "calls without Redis are not charged"


@asynccontextmanager
async def lasting(gateway: RunningGateway, stores: Stores, place: Path) -> AsyncIterator[Lasting]:
    """What a worker has, in this process."""
    metrics = ProxyMetrics(())
    spill = SpillFiles(place, "canary", metrics)
    made = Lasting(gateway.settings, (stores, spill), metrics, BpeTokenizer())
    yield made
    await made.settlements.confirmed()
    spill.close()


Patch = Callable[[Stores, pytest.MonkeyPatch], None]


def no_limit(stores: Stores, patched: pytest.MonkeyPatch) -> None:
    """A build that looks at no limit."""
    reserve: Callable[[ReserveAsk], Awaitable[Any]] = stores.store.reserve

    async def without(asked: ReserveAsk) -> Any:
        return await reserve(replace(asked, limits=replace(asked.limits, tokens=10**12)))

    patched.setattr(type(stores.store), "reserve", lambda _, asked: without(asked))


def no_room(stores: Stores, patched: pytest.MonkeyPatch) -> None:
    """One that refuses everybody."""
    reserve: Callable[[ReserveAsk], Awaitable[Any]] = stores.store.reserve

    async def without(asked: ReserveAsk) -> Any:
        return await reserve(replace(asked, limits=replace(asked.limits, tokens=0)))

    patched.setattr(type(stores.store), "reserve", lambda _, asked: without(asked))


def as_it_is(stores: Stores, patched: pytest.MonkeyPatch) -> None:
    """The one that ships."""


@pytest.mark.parametrize(
    ("patch", "result", "why"),
    [
        (as_it_is, "proven", ""),
        (no_limit, "broken", "a call over the limit was not refused: 418 canary (admitted)"),
        (
            no_room,
            "broken",
            TOO_LARGE,
        ),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_build_that_does_not_enforce_is_found_in_one_round(
    watched: RunningGateway, tmp_path: Path, patch: Patch, result: str, why: str
) -> None:
    async def look(stores: Stores) -> Finding:
        async with lasting(watched, stores, tmp_path) as parts:
            with pytest.MonkeyPatch.context() as patched:
                patch(stores, patched)
                return await prove(asking(watched.settings, parts))

    all_is_well(watched)
    found = watched.in_stores(look)
    assert (found.result, found.why) == (result, why)


def test_operators_are_told_of_what_is_broken(watched: RunningGateway, tmp_path: Path) -> None:
    async def told() -> list[str]:
        pool = await open_pool(ledger_url_of(watched.settings))
        try:
            asked = "SELECT facts FROM notifications WHERE kind = 'canary_failed'"
            return [str(each["facts"]) for each in await pool.fetch(asked)]
        finally:
            pool.terminate()

    async def break_it(stores: Stores) -> list[str]:
        async with lasting(watched, stores, tmp_path) as parts:
            with pytest.MonkeyPatch.context() as patched:
                no_limit(stores, patched)
                canary = Canary(parts, CanaryMetrics(CollectorRegistry()))
                canary.begin(watched.settings)
                found: list[str] = []
                for _ in range(round(WAIT_S / 0.1)):
                    if found := await told():
                        break
                    await asyncio.sleep(0.1)
                canary.end()
        return found

    (facts,) = watched.in_stores(break_it)
    assert "a call over the limit was not refused" in facts


def test_a_reload_ends_the_canary_and_brings_it_back(watched: RunningGateway) -> None:
    all_is_well(watched)
    written = watched.config.read_text()
    changed = yaml.safe_load(written) | {"canary": None}
    watched.config.write_text(yaml.safe_dump(changed, sort_keys=False))
    reloaded(watched)
    assert "quota_gateway_canary_ok" not in ask(f"{watched.ops}/metrics").text
    watched.config.write_text(written)
    reloaded(watched)
    all_is_well(watched)


def reloaded(gateway: RunningGateway) -> None:
    before = gateway.metric("config_reloads_total", result="ok")
    os.kill(gateway.pid, signal.SIGHUP)

    def is_done() -> bool:
        return gateway.metric("config_reloads_total", result="ok") == before + 1

    until(is_done, WAIT_S, "the reload")
