"""Added latency at a fixed rate: the gateway and a bare pass-through over the same call directly.

150 requests/s is far below what either can do, so what is measured is the way through, not a queue.
Direct, bare and gateway take turns; p50 and p99 are of each turn, and the median turn counts.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from bench.load import Pace
from bench.measure import Reading, at_pace, warm
from bench.rig import whole_comparison
from bench.table import Table

RATE = 150
_CONNECTIONS = 32


def run(rounds: int, seconds: float) -> dict[str, Any]:
    """Milliseconds of each, and what gateway and bare add. BenchError if the books disagree."""
    with whole_comparison() as rig:
        prepared = rig.requests("plain", 1024)
        subjects = (rig.direct("plain"), rig.bare("plain"), rig.gateway())
        for subject in subjects:
            answered = warm(subject, prepared, _CONNECTIONS)
            rig.answered += answered if subject.name == "gateway" else 0
        readings: dict[str, list[Reading]] = {subject.name: [] for subject in subjects}
        pace = Pace(_CONNECTIONS, seconds, RATE)
        for _ in range(rounds):
            for subject in subjects:
                readings[subject.name].append(at_pace(subject, prepared, pace))
        rig.answered += sum(reading.answered for reading in readings["gateway"])
        found = {name: _percentiles(each) for name, each in readings.items()}
        return {
            "loop": rig.loop,
            "rounds": rounds,
            "seconds": seconds,
            "books": rig.check_books(),
            **found,
            "ratio": {
                name: (found["gateway"][name] - found["direct"][name])
                / (found["bare"][name] - found["direct"][name])
                for name in ("p50_ms", "p99_ms")
            },
        }


def _percentiles(readings: Sequence[Reading]) -> dict[str, float]:
    return {
        "p50_ms": statistics.median(reading.p50_ms for reading in readings),
        "p99_ms": statistics.median(reading.p99_ms for reading in readings),
    }


def table(facts: dict[str, Any]) -> Table:
    """Milliseconds, and what is added over a direct call."""
    direct = facts["direct"]
    rows = []
    for name in ("direct", "bare", "gateway"):
        found = facts[name]
        rows.append(
            (
                name,
                f"{found['p50_ms']:.2f}",
                f"{found['p99_ms']:.2f}",
                f"{found['p50_ms'] - direct['p50_ms']:.2f}",
                f"{found['p99_ms'] - direct['p99_ms']:.2f}",
            )
        )
    ratio = facts["ratio"]
    notes = (
        f"What the gateway adds is {ratio['p50_ms']:.2f} (p50) and {ratio['p99_ms']:.2f} (p99) "
        "times what the bare pass-through adds.",
        f"Event loop: {facts['loop']}. {facts['rounds']} rounds of {facts['seconds']:g} s in turn.",
        f"{facts['books']}.",
    )
    columns = ("", "p50 ms", "p99 ms", "added p50 ms", "added p99 ms")
    return Table(f"Latency at {RATE} requests/s", columns, rows, notes)
