"""Every rule and every panel returns data: a real Prometheus over a real gateway and its ledger."""

from __future__ import annotations

import asyncio
import math
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import asyncpg
import pytest

from gateway.app.embedded import ledger_url_of
from tests.boards.busy_gateway import Busy, busy_gateway, keep_busy
from tests.boards.panels import Ask, asks
from tests.boards.prometheus_files import ALERTS, RECORDED
from tests.boards.prometheus_process import PrometheusProcess
from tests.gateway.waiting_for import until

_DATA_S = 60.0


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def busy(tmp_path: Path, missing: Callable[[str], NoReturn]) -> Iterator[Busy]:
    if shutil.which("prometheus") is None:
        missing("prometheus is not installed (package prometheus)")
    with busy_gateway(tmp_path) as running:
        yield running


def has_data(prometheus: PrometheusProcess, expression: str) -> bool:
    values = [float(series["value"][1]) for series in prometheus.query(expression)]
    return any(map(math.isfinite, values))


def await_data(prometheus: PrometheusProcess, expressions: list[str]) -> None:
    """Wait until each has returned a figure; the others are named."""
    left = list(expressions)
    end_s = time.monotonic() + _DATA_S
    while left and time.monotonic() < end_s:
        left = [each for each in left if not has_data(prometheus, each)]
        time.sleep(0.2)
    assert not left, f"no data: {left}"


async def empty_tables(url: str, questions: list[Ask], user_id: str) -> list[str]:
    connection: Any = await asyncpg.connect(url)
    try:
        return [ask.panel for ask in questions if not await connection.fetch(ask.sql(user_id))]
    finally:
        await connection.close()


def await_rows(busy: Busy) -> None:
    """Wait until each question to the ledger finds rows: what was told comes with the mail."""
    url, left = ledger_url_of(busy.gateway.settings), [ask for ask in asks() if ask.is_sql]

    def found() -> bool:
        empty = asyncio.run(empty_tables(url, left, busy.user_id))
        left[:] = [ask for ask in left if ask.panel in empty]
        return not left

    until(found, _DATA_S, f"rows of {[ask.panel for ask in left]}")


def test_every_panel_and_every_rule_returns_data(busy: Busy, tmp_path: Path) -> None:
    prometheus = PrometheusProcess(tmp_path / "prometheus", busy.gateway.ops)
    try:
        there = [*(ask.promql() for ask in asks() if not ask.is_sql), *RECORDED]
        assert len(there) > 60
        with keep_busy(busy):
            await_data(prometheus, there)
        rules = prometheus.rules()
        assert len(rules) == len(RECORDED) + len(ALERTS)
        assert {rule["health"] for rule in rules} == {"ok"}, rules
        await_rows(busy)
    finally:
        prometheus.stop()
