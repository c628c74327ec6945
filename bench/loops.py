"""Which event loop a process runs on: the standard library's, or uvloop's."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import Literal

Loop = Literal["asyncio", "uvloop"]


def new_loop(name: Loop) -> asyncio.AbstractEventLoop:
    """A new loop of that kind."""
    if name == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    return asyncio.new_event_loop()


def fastest() -> Loop:
    """For what is not measured: uvloop where it is installed."""
    return "uvloop" if find_spec("uvloop") else "asyncio"
