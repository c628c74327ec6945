"""The boards drawn from a real run, for the documents: `python -m tests.boards.pictures`.

Starts a gateway with all that a board can show, a Prometheus, and lets calls run for a minute and a
half; then asks what Grafana would ask, and draws docs/board-*.png in Chromium. No Grafana can be
installed where this runs; see docs/decisions/0047.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import asyncpg

from gateway.app.embedded import ledger_url_of
from tests.boards.busy_gateway import Busy, busy_gateway, keep_busy
from tests.boards.drawing import WIDE, Figures, Json, Line, page
from tests.boards.panels import Ask, boards
from tests.boards.prometheus_files import ROOT
from tests.boards.prometheus_process import PrometheusProcess
from tests.gateway.browser import Tab, browser

_RUN_S, _STEP_S = 90.0, 2.0
_RATES_OVER = "20s"
_ROWS_MAX = 12


def named(ask: Ask, labels: dict[str, str]) -> str:
    """The legend, with labels in place of {{label}}."""
    name = str(ask.target["legendFormat"])
    for label, value in labels.items():
        name = name.replace("{{" + label + "}}", value)
    return name or ", ".join(labels.values())


def lines_of(prometheus: PrometheusProcess, ask: Ask, since_s: float) -> list[Line]:
    asked = ask.promql(_RATES_OVER)
    if ask.target.get("instant"):
        found = prometheus.query(asked)
        return [(named(ask, each["metric"]), [_point(each["value"])]) for each in found]
    found = prometheus.over(asked, since_s, time.time(), _STEP_S)
    points = [(each["metric"], [_point(value) for value in each["values"]]) for each in found]
    return [
        (named(ask, labels), finite)
        for labels, values in points
        if (finite := [point for point in values if math.isfinite(point[1])])
    ]


def _point(value: list[Any]) -> tuple[float, float]:
    return float(value[0]), float(value[1])


async def rows_of(url: str, ask: Ask, user_id: str) -> list[Json]:
    connection: Any = await asyncpg.connect(url)
    try:
        return [dict(row) for row in await connection.fetch(ask.sql(user_id))]
    finally:
        await connection.close()


def from_ledger(busy: Busy, ask: Ask) -> Figures:
    url = ledger_url_of(busy.gateway.settings)
    rows = asyncio.run(rows_of(url, ask, busy.user_id))
    if ask.target["format"] == "table":
        columns = list(rows[0]) if rows else []
        return Figures(
            columns=columns, rows=[[_cell(v) for v in row.values()] for row in rows[:_ROWS_MAX]]
        )
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        point = (row["time"].timestamp(), float(row["tokens"]))
        lines.setdefault(row["metric"], []).append(point)
    return Figures(list(lines.items()))


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:%Y-%m-%d %H:%M}" if hasattr(value, "strftime") else str(value)


def figures_of(
    prometheus: PrometheusProcess, busy: Busy, board: Json, since_s: float
) -> dict[int, Figures]:
    found = {}
    for panel in board["panels"]:
        asks = [Ask(board["uid"], panel["title"], target) for target in panel["targets"]]
        if asks[0].is_sql:
            found[panel["id"]] = from_ledger(busy, asks[0])
        elif panel["type"] == "table":
            series = prometheus.query(asks[0].promql(_RATES_OVER))
            columns = sorted({label for each in series for label in each["metric"]})
            rows = [
                [*(each["metric"].get(c, "") for c in columns), each["value"][1]] for each in series
            ]
            found[panel["id"]] = Figures(columns=[*columns, "Value"], rows=rows)
        else:
            found[panel["id"]] = Figures(
                [line for ask in asks for line in lines_of(prometheus, ask, since_s)]
            )
    return found


def draw(place: Path, board: Json, figures: dict[int, Figures]) -> None:
    html, high = page(board, figures)
    source = place / f"{board['uid']}.html"
    source.write_text(html)
    name = board["uid"].removeprefix("quota-")
    with browser() as pipe:
        tab = Tab(pipe)
        tab.looks((24 * WIDE + 16, high))
        tab.open(source.as_uri())
        tab.picture(ROOT / "docs" / f"board-{name}.png", high)


def main(run_s: float) -> None:
    os.environ["NO_PROXY"] = "*"
    with tempfile.TemporaryDirectory(prefix="qg-boards-") as temporary:
        place = Path(temporary)
        with busy_gateway(place) as busy:
            prometheus = PrometheusProcess(place / "prometheus", busy.gateway.ops)
            try:
                since_s = time.time()
                with keep_busy(busy):
                    time.sleep(run_s)
                    found = [
                        (each, figures_of(prometheus, busy, each, since_s)) for each in boards()
                    ]
            finally:
                prometheus.stop()
        for board, figures in found:
            draw(place, board, figures)
            print(f"docs/board-{board['uid'].removeprefix('quota-')}.png")


if __name__ == "__main__":
    main(float(sys.argv[1]) if sys.argv[1:] else _RUN_S)
