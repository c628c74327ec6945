"""`python -m tests.chaos`: break a whole world on a schedule, and audit what came of it.

With a seed one run of that length; without one, runs of at most a minute with seeds of their own,
together that long, healing and the audit not counted. Ends with 1 at the first finding.
"""

from __future__ import annotations

import argparse
import math
import secrets
import sys

from tests.chaos.planted.faults import FAULTS
from tests.chaos.run import Order, Report, run
from tests.chaos.world import PRODUCT

_RUN_MINUTES_MAX = 1.0


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long things are broken")
    parser.add_argument("--seed", type=int, help="of one run (default: drawn, run after run)")
    parser.add_argument("--planted", choices=FAULTS, help="with this fault in the product")
    parser.add_argument("--keep", action="store_true", help="keep the logs of good runs too")
    chosen = parser.parse_args()
    entry = ("-m", "tests.chaos.planted", chosen.planted) if chosen.planted else PRODUCT
    if chosen.seed is not None:
        return _told(run(Order(chosen.seed, chosen.minutes * 60, entry, chosen.keep)))
    runs = math.ceil(chosen.minutes / _RUN_MINUTES_MAX)
    for _ in range(runs):
        length_s = round(chosen.minutes * 60 / runs, 1)
        if _told(run(Order(secrets.randbelow(10**6), length_s, entry, chosen.keep))):
            return 1
    return 0


def _told(report: Report) -> int:
    found = bool(report.verdict.findings)
    print(report.failure() if found else report.summary(), flush=True)
    return int(found)


if __name__ == "__main__":
    sys.exit(main())
