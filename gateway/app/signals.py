"""What every running command does: log, end on a signal, and say that it is ready.

Imports little, because whoever starts others comes first.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Mapping


def configure_logs() -> None:
    """Log lines to standard error: time, level, part, text. Never bodies, headers or keys."""
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        force=True,
    )


def stop_signal() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def say_ready(places: Mapping[str, str]) -> None:
    """Tell whoever started this process where it can be reached."""
    words = " ".join(f"{name}={place}" for name, place in places.items())
    sys.stdout.write(f"ready {words}".rstrip() + "\n")
    sys.stdout.flush()
