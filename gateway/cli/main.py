"""Reads the command line and runs the command it names.

Each group of commands is a module with an `add_commands`; what they print and return is theirs,
how failures end is decided here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from gateway import __version__
from gateway.cli import doctor, ledger, mail, operating, processes, topups, trials, users
from gateway.cli.failures import ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    parser = argparse.ArgumentParser(
        prog="quota-gateway",
        description="Holds every user to a monthly quota of tokens, in front of OpenAI.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for group in (processes, doctor, users, operating, topups, ledger, mail, trials):
        group.add_commands(commands)
    chosen = parser.parse_args(arguments)
    return ended(lambda: int(chosen.run(chosen)))


if __name__ == "__main__":
    sys.exit(main())
