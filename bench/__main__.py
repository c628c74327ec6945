"""`python -m bench cpu`: the gateway beside a bare pass-through, in turn."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench.load import Pace
from bench.measure import Reading, Subject, measure, warm
from bench.processes import BenchError, Started, cores, loop_of, pin, python
from bench.requests import Shape, requests
from bench.stack import UPSTREAM_KEY, GatewayStack


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench")
    commands = parser.add_subparsers(required=True)
    cpu = commands.add_parser("cpu", help="CPU microseconds a request, gateway and bare in turn")
    cpu.add_argument("--rounds", type=int, default=3)
    cpu.add_argument("--seconds", type=float, default=3.0)
    cpu.add_argument("--rate", type=float, default=0.0, help="requests a second (0: saturation)")
    cpu.add_argument("--connections", type=int, default=64)
    cpu.add_argument("--bytes", type=int, default=1024)
    cpu.add_argument("--stream", action="store_true")
    chosen = parser.parse_args()
    try:
        return run_cpu(chosen)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1


def run_cpu(chosen: argparse.Namespace) -> int:
    tested, other = cores()
    os.sched_setaffinity(0, {other})
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qg-bench-")))
        upstream = Started("upstream", python("bench.upstream"), place, {})
        stack.callback(upstream.stop)
        upstream_url = f"http://127.0.0.1:{upstream.said[0]}"
        gateway = GatewayStack(place, upstream_url)
        gateway.start()
        stack.callback(gateway.stop)
        gateway.pin_workers(tested)
        workers = gateway.workers()
        loop, port = loop_of(workers[0]), gateway.port + 1
        bare = Started(
            "bare",
            python(
                *("bench.bare", "--upstream", upstream_url, "--key", UPSTREAM_KEY),
                *("--port", str(port), "--loop", loop),
            ),
            place,
            {},
        )
        stack.callback(bare.stop)
        pin(bare.pid, tested)
        subjects = (
            Subject("gateway", gateway.port, tuple(workers)),
            Subject("bare", port, (bare.pid,)),
        )
        shape = Shape(chosen.bytes, chosen.stream)
        prepared = requests(shape, gateway.new_keys(64))
        pace = Pace(chosen.connections, chosen.seconds, chosen.rate or None)
        answered = warm(subjects[0], prepared, chosen.connections)
        warm(subjects[1], prepared, chosen.connections)
        found: dict[str, list[Reading]] = {"gateway": [], "bare": []}
        for number in range(chosen.rounds):
            for subject in subjects:
                reading = measure(subject, prepared, pace)
                found[subject.name].append(reading)
                print(
                    f"{number + 1} {subject.name:8} {reading.cpu_us:7.1f} us/request  "
                    f"{reading.requests_per_s:7.0f}/s  p50 {reading.p50_ms:6.2f} ms  "
                    f"p99 {reading.p99_ms:6.2f} ms  core {reading.cpu_share:4.0%}",
                    flush=True,
                )
        answered += sum(reading.answered for reading in found["gateway"])
        of_gateway, of_bare = (
            statistics.median(reading.cpu_us for reading in found[name])
            for name in ("gateway", "bare")
        )
        print(f"loop {loop}; bare / gateway = {of_bare / of_gateway:.2f}")
        agrees, rows = gateway.verdict()["agrees"], gateway.rows_of_usage()
        print(
            f"ledger verify {'clean' if agrees else 'DIFFERS'}; {rows} rows of {answered} answers"
        )
        return 0 if agrees and rows == answered else 1


if __name__ == "__main__":
    sys.exit(main())
