"""The results in the tree: `docs/performance.json`, and from it tables and pictures for a reader.

A part that was measured again replaces only its own results, and each says when and on what it was
measured. What stands outside the marks in `docs/performance.md` is left as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import cpu, draining, floor, latency, open_streams, outages, scripts, start, workers
from bench.chart import Chart
from bench.machine import described
from bench.processes import ROOT, BenchError
from bench.table import Table

Facts = dict[str, Any]
TABLES: dict[str, Callable[[Facts], Table]] = {
    "cpu": cpu.table,
    "floor": floor.table,
    "latency": latency.table,
    "streams": open_streams.table,
    "start": start.table,
    "scripts": scripts.table,
    "drain": draining.table,
    "workers": workers.table,
    "frozen": outages.frozen_table,
    "away": outages.away_table,
}
BEGIN, END = "<!-- written by `make bench`: from here -->", "<!-- to here -->"


def keep(part: str, facts: Facts, docs: Path = ROOT / "docs") -> None:
    """Put the results of one part into the tree."""
    file = docs / "performance.json"
    kept: dict[str, Facts] = json.loads(file.read_text()) if file.exists() else {}
    kept[part] = {"on": described(), "found": facts}
    ordered = {name: kept[name] for name in TABLES if name in kept}
    file.write_text(json.dumps(ordered, indent=1) + "\n")
    write(ordered, docs)


def write(kept: dict[str, Facts], docs: Path) -> None:
    """Write tables and pictures of what was kept. BenchError when the marks are not there."""
    page = docs / "performance.md"
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchError(f"{page} has lost the lines {BEGIN!r} and {END!r}")
    parts = []
    for name, each in kept.items():
        text = TABLES[name](each["found"]).markdown()
        for chart_name, words, chart in _charts(name, each["found"]):
            (docs / chart_name).write_text(chart.svg())
            text += f"\n\n![{words}]({chart_name})"
        parts.append(f"{text}\n\n{_measured(name, each['on'])}")
    page.write_text(f"{before}{BEGIN}\n\n" + "\n\n".join(parts) + f"\n\n{END}{after}")


def _measured(part: str, on: dict[str, str]) -> str:
    return (
        f"`python -m bench {part}`, {on['date']}: {on['machine']}; "
        f"Python {on['python']}, {on['versions']}."
    )


def _charts(part: str, facts: Facts) -> list[tuple[str, str, Chart]]:
    if part == "cpu":
        rows = [
            (each["case"]["title"], (each["gateway"]["cpu_us"], each["bare"]["cpu_us"]))
            for each in facts["cases"]
        ]
        series = ("quota-gateway", "bare pass-through")
        whole = [row for row, each in zip(rows, facts["cases"], strict=True) if not _streams(each)]
        streams = [row for row, each in zip(rows, facts["cases"], strict=True) if _streams(each)]
        found = [
            ("performance-cpu.svg", "CPU time a request", whole),
            ("performance-stream.svg", "CPU time a stream", streams),
        ]
        return [
            (name, words, Chart(words, "microseconds, less is better", series, of))
            for name, words, of in found
            if of
        ]
    if part == "latency":
        direct = facts["direct"]
        names = ("gateway", "bare")
        rows = [
            (shown, tuple(facts[name][key] - direct[key] for name in names))
            for shown, key in (("half of the calls (p50)", "p50_ms"), ("99 % (p99)", "p99_ms"))
        ]
        title, series = "Added latency at 150 requests/s", ("quota-gateway", "bare pass-through")
        chart = Chart(title, "milliseconds, less is better", series, rows, decimals=2)
        return [("performance-latency.svg", title, chart)]
    return []


def _streams(compared: Facts) -> bool:
    return bool(compared["case"]["lane"] == "stream")
