"""How fast the ledger is filled and how late it is: `bench/drain.py`, run as a program of its own.

What it says, line by line, is the result.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from bench.processes import ROOT, BenchError, with_tree
from bench.table import Table

_PROGRAM = ROOT / "bench" / "drain.py"


def possible() -> bool:
    """Whether this version has that program."""
    return _PROGRAM.exists()


def run(options: list[str]) -> dict[str, Any]:
    """The lines that begin with a name and a colon. BenchError when it fails."""
    if not possible():
        raise BenchError("this version has no bench/drain.py")
    argv = (sys.executable, str(_PROGRAM), *options)
    ran = subprocess.run(argv, cwd=ROOT, env=with_tree(), capture_output=True, text=True)
    if ran.returncode:
        raise BenchError(f"bench/drain.py failed:\n{ran.stderr[-2000:]}")
    told = (line.partition(":") for line in ran.stdout.splitlines())
    return {"said": [[name.strip(), text.strip()] for name, colon, text in told if colon]}


def table(facts: dict[str, Any]) -> Table:
    """What it said."""
    rows = [(name, text) for name, text in facts["said"]]
    return Table("The drain: rate, and lag while events come in", ("", "found"), rows)
