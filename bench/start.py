"""How long `serve` takes until it is ready, stores included: the first start, and later ones.

The first makes the stores; a later one finds them. On all cores, as a user would start it.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.lanes import Lane
from bench.stack import GatewayStack
from bench.table import Table

_NOWHERE = Lane("plain", "http://127.0.0.1:9")


def run(starts: int) -> dict[str, Any]:
    """Seconds of the first start, and of so many after it."""
    with tempfile.TemporaryDirectory(prefix="qg-bench-") as place:
        gateway = GatewayStack(Path(place), (_NOWHERE,), {})
        first_s, *later_s = (_start_s(gateway) for _ in range(starts + 1))
    return {"first_s": first_s, "later_s": later_s}


def _start_s(gateway: GatewayStack) -> float:
    began_s = time.monotonic()
    gateway.start()
    taken_s = time.monotonic() - began_s
    gateway.stop()
    return taken_s


def table(facts: dict[str, Any]) -> Table:
    """Seconds."""
    later_s = facts["later_s"]
    rows = (
        ("first start, which makes the stores", f"{facts['first_s']:.2f}", ""),
        (
            f"later start, median of {len(later_s)}",
            f"{statistics.median(later_s):.2f}",
            f"{min(later_s):.2f}-{max(later_s):.2f}",
        ),
    )
    return Table("Start to ready, embedded stores", ("", "seconds", "range"), rows)
