"""Waiting for a condition outside this process, of which nobody sends word.

Bounded, and polled at a pace that costs nothing and is not felt.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

_POLL_S = 0.005  # a process's end or a lock: sooner would only cost, later would be felt


async def comes_true(condition: Callable[[], bool], wait_s: float) -> bool:
    """Ask `condition` until it holds; False if it has not within `wait_s` seconds."""
    deadline = time.monotonic() + wait_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_POLL_S)
    return True
