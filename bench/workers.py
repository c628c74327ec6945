"""Two proxy workers against one: requests a second and CPU time, at saturation.

On all cores, since workers are there to use them. With two cores the load, the upstream and the
stores take theirs from the same two, so the gain shows only on larger machines.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.lanes import Lane, models_of
from bench.measure import Reading, Storm, at_saturation, warm
from bench.nginx import Nginx
from bench.processes import ROOT, BenchError, python
from bench.requests import Shape, requests
from bench.rig import Subject
from bench.stack import GatewayStack
from bench.table import Table
from bench.wrk import write_requests

_CONNECTIONS = 64
_USERS = 128


def run(rounds: int, seconds: int) -> dict[str, Any]:
    """Rounds with one and with two workers in turn. BenchError where `serve` cannot do it."""
    if not possible():
        raise BenchError("`quota-gateway serve` of this version has no --workers")
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qg-bench-")))
        nginx = Nginx(place)
        stack.callback(nginx.stop)
        found: dict[str, list[Reading]] = {"1": [], "2": []}
        for _ in range(rounds):
            for workers, readings in found.items():
                readings.append(_with_workers(place, nginx.plain, workers, seconds))
    cores = len(os.sched_getaffinity(0))
    readings_of = {name: [asdict(each) for each in readings] for name, readings in found.items()}
    return {"cores": cores, "seconds": seconds, "workers": readings_of}


def possible() -> bool:
    """Whether `serve` knows of workers."""
    help_text = subprocess.run(
        python("gateway", "serve", "--help"), cwd=ROOT, capture_output=True, text=True
    )
    return "--workers" in help_text.stdout


def _with_workers(place: Path, upstream: str, workers: str, seconds: int) -> Reading:
    lane = Lane("plain", upstream)
    with tempfile.TemporaryDirectory(dir=place) as home:
        gateway = GatewayStack(Path(home), (lane,), {})
        gateway.start("--workers", workers)
        try:
            keys = gateway.new_keys(_USERS, "room")
            prepared = requests(Shape(model=models_of((lane,))["plain"]), keys)
            write_requests(prepared, Path(home) / "requests")
            subject = Subject("gateway", gateway.port, gateway.workers(), gateway.beside())
            warm(subject, prepared, _CONNECTIONS)
            storm = Storm(Path(home) / "requests", _CONNECTIONS, seconds)
            return at_saturation(subject, storm)
        finally:
            gateway.stop()


def table(facts: dict[str, Any]) -> Table:
    """Requests a second and CPU time, each round."""
    rows = [
        (
            f"{workers} worker{'s' if workers != '1' else ''}",
            " ".join(f"{each['requests_per_s']:,.0f}" for each in readings),
            " ".join(f"{each['cpu_us']:.0f}" for each in readings),
        )
        for workers, readings in facts["workers"].items()
    ]
    columns = ("", "requests/s, each round", "gateway, µs a request")
    notes = (f"On {facts['cores']} cores, shared with the load, the upstream and the stores.",)
    return Table("Two workers against one", columns, rows, notes)
