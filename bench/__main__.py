"""`python -m bench [PART]`: measure one part, or all of them, and show what was found.

All takes some fifteen minutes. With --keep, as `make bench` has it, the results go into docs/ too.
`python -m bench cpu --quick` needs neither wrk nor nginx and takes a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench import cpu, draining, floor, latency, open_streams, outages, scripts, start, workers
from bench.measure import Reading
from bench.processes import BenchError
from bench.report import TABLES, Facts, keep

Options = argparse.Namespace


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that is measured. `rounds`, `seconds`: as usual; 0 where there are none."""

    about: str
    run: Callable[[Options], Facts]
    rounds: int = 0
    seconds: float = 0.0
    possible: Callable[[], bool] = lambda: True


def main() -> int:
    """The exit code: 1 when a part could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="put the results into docs/")
    commands = parser.add_subparsers(dest="part", metavar="PART")
    for name, part in PARTS.items():
        _add_options(name, part, commands.add_parser(name, help=part.about))
    chosen = parser.parse_args()
    wanted = [chosen.part] if chosen.part else list(PARTS)
    failed = [name for name in wanted if not _measured(name, chosen, parser)]
    return 1 if failed else 0


def _add_options(name: str, part: Part, parser: argparse.ArgumentParser) -> None:
    if part.rounds:
        parser.add_argument("--rounds", type=int, default=part.rounds)
    if part.seconds:
        parser.add_argument("--seconds", type=float, default=part.seconds, help="of one round")
    if name == "cpu":
        known = {each.name for each in cpu.CASES}
        parser.add_argument("--case", action="append", choices=sorted(known), help="only these")
        parser.add_argument("--quick", action="store_true", help="without wrk and nginx")
        parser.add_argument(
            "--bare-loop", choices=("asyncio", "uvloop"), default="", help="of the pass-through"
        )
    elif name == "streams":
        parser.add_argument("--streams", type=int, default=open_streams.STREAMS)
    elif name == "drain":
        parser.add_argument("options", nargs="*", default=[], help="of bench/drain.py, after --")
    elif name == "away":
        parser.add_argument("--minutes", type=float, default=1.0, help="for so long")
    elif name == "scripts":
        parser.add_argument("users", type=int, nargs="*", default=[1000, 100_000])


def _measured(name: str, chosen: Options, parser: argparse.ArgumentParser) -> bool:
    """Measure a part, show it, keep it if that is wanted. False when it could not be measured."""
    options = chosen if chosen.part else parser.parse_args([name])
    part, began_s = PARTS[name], time.monotonic()
    if not chosen.part and not part.possible():
        print(f"--- {name}: left out, this version cannot do it\n")
        return True
    print(f"--- {name}: {part.about}", flush=True)
    try:
        found = part.run(options)
    except BenchError as error:
        print(f"bench: {name}: {error}", file=sys.stderr, flush=True)
        return False
    print(TABLES[name](found).text())
    print(f"({time.monotonic() - began_s:.0f} s)\n", flush=True)
    if chosen.keep:
        keep(name, found)
    return True


def _cpu(options: Options) -> Facts:
    cases: tuple[cpu.Case, ...] = cpu.QUICK if options.quick else cpu.CASES
    if options.case:
        cases = tuple(case for case in cpu.CASES if case.name in options.case)
    return cpu.run(cases, options.rounds, options.seconds, _show, options.bare_loop)


def _show(case: cpu.Case, subject: str, reading: Reading) -> None:
    print(
        f"{case.name:12} {subject:8} {reading.cpu_us:7.1f} µs a request "
        f"{reading.requests_per_s:8,.0f}/s  p50 {reading.p50_ms:7.2f} ms  "
        f"p99 {reading.p99_ms:7.2f} ms  core {reading.core:4.0%}",
        flush=True,
    )


PARTS = {
    "cpu": Part("CPU time a request, gateway and bare pass-through in turn", _cpu, 5, 3.0),
    "floor": Part(
        "what a call costs without any rule",
        lambda options: floor.run(options.rounds, round(options.seconds)),
        rounds=5,
        seconds=3.0,
    ),
    "latency": Part(
        "added latency at 150 requests/s",
        lambda options: latency.run(options.rounds, options.seconds),
        rounds=3,
        seconds=5.0,
    ),
    "streams": Part(
        "memory with thousands of open streams", lambda options: open_streams.run(options.streams)
    ),
    "start": Part("start to ready", lambda options: start.run(options.rounds), rounds=3),
    "scripts": Part(
        "script time and bytes, by the number of users",
        lambda options: asyncio.run(scripts.measure(options.users)),
    ),
    "drain": Part(
        "how fast the ledger is filled, and how late it is",
        lambda options: draining.run(options.options),
        possible=draining.possible,
    ),
    "workers": Part(
        "two workers against one",
        lambda options: workers.run(options.rounds, round(options.seconds)),
        rounds=2,
        seconds=4.0,
        possible=workers.possible,
    ),
    "frozen": Part(
        "what calls wait for when Redis stands still",
        lambda options: outages.frozen(options.rounds),
        rounds=10,
    ),
    "away": Part(
        "what callers notice of Postgres being away",
        lambda options: outages.away(options.minutes),
    ),
}


if __name__ == "__main__":
    sys.exit(main())
