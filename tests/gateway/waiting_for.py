"""Waiting for something to become true, with a deadline and a name for what did not come."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_POLL_S = 0.02


def until(found: Callable[[], T | None], wait_s: float, what: str) -> T:
    """The first true answer of `found`; AssertionError when there is none in `wait_s`."""
    deadline = time.monotonic() + wait_s
    while True:
        answer = found()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"waited {wait_s:g} s for {what}"
        time.sleep(_POLL_S)
