"""Proof that the bench can fail: each planted fault must be reported, in the words expected of it.

A seed fixes what is broken and when, but not how the processes take turns, and each of these faults
is a race. So a fault has a few seeds, and is missed only when none of them shows it.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass

from tests.chaos.planted.faults import FAULTS
from tests.chaos.run import Order, run


@dataclass(frozen=True, slots=True)
class Proof:
    """Seeds that bring the fault out, and the finding by which it is known."""

    seeds: tuple[int, ...]
    length_s: float
    finding: str


PROOFS = {
    "dropped": Proof((2760, 903, 559), 15.0, "unmeasured"),
    "forgetful": Proof((5, 62, 104), 20.0, "unbooked"),
    "careless": Proof((788, 1589, 4206), 12.0, "expired early"),
    "early": Proof((3313, 1091, 2265), 15.0, "unbooked"),
}


def main() -> int:
    """0 when every fault was reported."""
    reported = [name for name in FAULTS if _is_reported(name)]
    return 0 if len(reported) == len(FAULTS) else 1


def _is_reported(name: str) -> bool:
    proof, about = PROOFS[name], (FAULTS[name].__doc__ or "").strip()
    for seed in proof.seeds:
        report = run(Order(seed, proof.length_s, ("-m", "tests.chaos.planted", name)))
        shutil.rmtree(report.logs, ignore_errors=True)
        found = [each for each in report.verdict.findings if each.kind == proof.finding]
        if found:
            print(f"reported by seed {seed}: {name}: {about}\n  {found[0]}", flush=True)
            return True
        print(f"not reported by seed {seed}: {name}", flush=True)
    print(f"NOT REPORTED: {name}: {about}", flush=True)
    return False


if __name__ == "__main__":
    sys.exit(main())
