"""`python -m tests.chaos.planted FAULT …`: the product's own command line, with a fault in it.

Whatever follows the fault's name goes to the product unchanged. Processes that it forks have the
fault too.
"""

from __future__ import annotations

import sys

from gateway.cli import main
from tests.chaos.planted.faults import FAULTS

if __name__ == "__main__":
    FAULTS[sys.argv[1]]()
    raise SystemExit(main(sys.argv[2:]))
