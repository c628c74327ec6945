"""The load at saturation: wrk, with prepared requests, as fast as answers come.

wrk breaks off what is open when its time is up: up to one request a connection, which a gateway
answers and books although nobody counts it. `cut_max` says how many these can be.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.processes import ROOT, BenchError, tool

_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class Flood:
    """What wrk did."""

    answered: int
    failed: int
    seconds: float
    p50_ms: float
    p99_ms: float
    cut_max: int


def write_requests(requests: Sequence[bytes], file: Path) -> None:
    """Write them as wrk.lua reads them."""
    file.write_bytes(b"".join(b"%d\n%b" % (len(request), request) for request in requests))


def flood(port: int, file: Path, connections: int, seconds: int) -> Flood:
    """Send what is in the file for so long, over and over."""
    argv = (
        *(tool("wrk", "wrk"), "-t1", f"-c{connections}", f"-d{seconds}s"),
        *("--timeout", f"{_TIMEOUT_S}s", "-s", str(ROOT / "bench" / "wrk.lua")),
        *(f"http://127.0.0.1:{port}", "--", str(file)),
    )
    ran = subprocess.run(argv, capture_output=True, text=True)
    if ran.returncode:
        raise BenchError(f"wrk failed:\n{ran.stdout}{ran.stderr}")
    told = json.loads(ran.stdout.splitlines()[-1])
    return Flood(
        answered=told["requests"] - told["refused"],
        failed=told["refused"] + told["broken"],
        seconds=told["duration_us"] / 1e6,
        p50_ms=told["p50_us"] / 1000,
        p99_ms=told["p99_us"] / 1000,
        cut_max=connections,
    )
