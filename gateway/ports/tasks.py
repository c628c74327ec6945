"""The one way to start a background task: named, and held until it ends.

The event loop keeps only weak references to tasks, so a bare `create_task` may be collected in
mid-flight (see the note in the asyncio documentation). The linter bans it everywhere else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")
_running: set[asyncio.Task[Any]] = set()
_log = logging.getLogger("gateway.tasks")


def spawn(work: Coroutine[Any, Any, _T], name: str, *, awaited: bool = False) -> asyncio.Task[_T]:
    """Run `work` beside the caller. Its exception is logged with the name, unless the caller says
    that the task is `awaited` and the exception is dealt with there."""
    task = asyncio.get_running_loop().create_task(work, name=name)
    _running.add(task)
    task.add_done_callback(_running.discard if awaited else _forget)
    return task


def _forget(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if task.cancelled():
        return
    error = task.exception()
    if error is not None:
        _log.error("background task %s failed: %r", task.get_name(), error, exc_info=error)
