"""What a call must cost anyway: the gateway beside a skeleton of itself without any rule.

Each step of the skeleton does one thing more. The last is what is left when nothing decides,
counts, prices or explains; what the gateway takes beyond it is what its rules cost.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.measure import Reading, Storm, at_saturation, warm
from bench.processes import Process, free_port, python
from bench.rig import Rig, Subject, whole_comparison
from bench.table import Table
from bench.wrk import write_requests
from gateway.adapters.embedded import start_redis

_CONNECTIONS, _BODY_BYTES = 64, 1024
_STEPS = {
    "passing": "the gateway's listener and upstream connections, nothing else",
    "holding": "with a hold and its settlement",
    "reading": "with the bodies read",
}


def run(rounds: int, seconds: int) -> dict[str, Any]:
    """Rounds of all in turn, at saturation. BenchError when a request failed."""
    with whole_comparison() as rig, ExitStack() as stack:
        subjects = [rig.bare("plain"), *_skeletons(rig, stack), rig.gateway()]
        prepared = rig.requests("plain", _BODY_BYTES)
        file = rig.place / "requests"
        write_requests(prepared, file)
        storm = Storm(file, _CONNECTIONS, seconds)
        for subject in subjects:
            warm(subject, prepared, _CONNECTIONS)
        readings: dict[str, list[Reading]] = {subject.name: [] for subject in subjects}
        for _ in range(rounds):
            for subject in subjects:
                readings[subject.name].append(at_saturation(subject, storm))
        return {
            "loop": rig.loop,
            "rounds": rounds,
            "seconds": seconds,
            "readings": {name: [asdict(each) for each in of] for name, of in readings.items()},
        }


def _skeletons(rig: Rig, stack: ExitStack) -> list[Subject]:
    place = stack.enter_context(tempfile.TemporaryDirectory(prefix="qg-bench-"))
    redis = asyncio.run(start_redis(Path(place)))
    stack.callback(lambda: asyncio.run(redis.stop()))
    made = []
    for name, given in (("passing", ("",)), ("holding", (redis.url,)), ("reading", (redis.url,))):
        port = free_port()
        words = (*given, "reads") if name == "reading" else given
        argv = python("bench.skeleton", str(port), rig.url("plain"), *words)
        process = Process(name, argv, rig.place, {})
        stack.callback(process.stop)
        process.ready()
        rig.on_core(process.pid)
        made.append(Subject(name, port, (process.pid,)))
    return made


def table(facts: dict[str, Any]) -> Table:
    """Each step against the pass-through, round by round."""
    readings = facts["readings"]
    bare = [each["cpu_us"] for each in readings["bare"]]
    titles = {"bare": "bare pass-through", **_STEPS, "gateway": "the gateway"}
    rows = []
    for name, title in titles.items():
        taken = [each["cpu_us"] for each in readings[name]]
        ratios = sorted(b / each for b, each in zip(bare, taken, strict=True))
        low, median, high = ratios[0], statistics.median(ratios), ratios[-1]
        rows.append(
            (title, f"{statistics.median(taken):.0f}", f"{median:.2f} ({low:.2f}-{high:.2f})")
        )
    columns = ("1 KB, as many as are answered", "µs a request", "bare / this")
    notes = (
        f"Event loop of all: {facts['loop']}. {facts['rounds']} rounds of {facts['seconds']:g} s "
        "in turn; medians, and of the ratio also the least and the greatest round.",
    )
    return Table("What a call costs without any rule", columns, rows, notes)
