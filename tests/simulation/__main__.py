"""Many worlds at once: `python -m tests.simulation --seeds 2000 --seed 1`, over all cores.

Prints how many seeds ran in a minute. Of a seed that broke a promise it prints which one, the line
that runs it again, and with --trace all that happened.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from dataclasses import replace
from itertools import islice

from tests.simulation.world import Outcome, run_world

_SHOWN_MAX = 5
_LINES_MAX = 60


def main() -> int:
    """0 when every promise was kept in every world."""
    asked = _arguments().parse_args()
    seeds = range(asked.seed, asked.seed + asked.seeds)
    began_s, calls, excused, broken = time.monotonic(), 0, 0, []
    with multiprocessing.Pool(min(asked.cores, asked.seeds)) as pool:
        for outcome in pool.imap_unordered(_without_trace, seeds, chunksize=20):
            calls += outcome.calls
            excused += bool(outcome.excused)
            if outcome.broken:
                broken.append(outcome)
    took_s = time.monotonic() - began_s
    for outcome in islice(sorted(broken, key=lambda each: each.seed), _SHOWN_MAX):
        print(report(outcome, whole=asked.trace))
    print(
        f"{len(seeds)} seeds from {asked.seed}, {calls} calls: {len(broken)} broken, {excused} "
        f"excused by a loss not noticed yet; {60 * len(seeds) / took_s:.0f} seeds a minute on "
        f"{asked.cores} cores"
    )
    return 1 if broken else 0


def report(outcome: Outcome, whole: bool) -> str:
    """What was broken, how to see it again, and the end (or all) of what happened."""
    lines = run_world(outcome.seed).story().splitlines()
    if not whole:
        lines = ["...", *lines[-_LINES_MAX:]]
    return "\n".join(
        [
            f"seed {outcome.seed}:",
            *(f"  {each}" for each in outcome.broken),
            f"  again: make simulate SEEDS=1 SEED={outcome.seed} ARGS=--trace",
            *lines,
        ]
    )


def _without_trace(seed: int) -> Outcome:
    outcome = run_world(seed)
    return replace(outcome, trace=[])


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--trace", action="store_true", help="print all that happened")
    return parser


if __name__ == "__main__":
    sys.exit(main())
