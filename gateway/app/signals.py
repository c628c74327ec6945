"""What every running command does: end or reload on a signal, and say that it is ready.

Imports little, because whoever starts others comes first.
"""

from __future__ import annotations

import asyncio
import os
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


def reload_signal(stop: asyncio.Event) -> asyncio.Event:
    """An event that SIGHUP sets, which asks for a reload. It is also what comes when a terminal is
    closed: whoever was started from one that is gone is to `stop`."""
    reload, had_terminal = asyncio.Event(), os.isatty(0)

    def told() -> None:
        is_hangup = had_terminal and not os.isatty(0)
        (stop if is_hangup else reload).set()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, told)
    return reload


def say_ready(places: Mapping[str, str]) -> None:
    """Tell whoever started this process where it can be reached."""
    words = " ".join(f"{name}={place}" for name, place in places.items())
    sys.stdout.write(f"ready {words}".rstrip() + "\n")
    sys.stdout.flush()
