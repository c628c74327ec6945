"""What every running command does: end on a signal, and say that it is ready.

Imports little, because whoever starts others comes first.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Mapping


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
