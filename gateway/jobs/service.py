"""The life of a background service: run, fail, pause, run again; stop when told.

A service's `step` does one round of work and says how long to rest. Trouble of a store is expected:
it is logged once, and the step is tried again with a growing pause until it works.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from gateway.ports.ledger import LedgerUnavailable
from gateway.ports.metrics import Waited
from gateway.ports.quota_store import StoreUnavailable

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_log = logging.getLogger("gateway.jobs")

Waits = Callable[[str, Waited | None], None]
"""Is told that the service of this name waits for a store; None: not any more."""


class Step(Protocol):
    """One kind of work. `name` is for the log."""

    @property
    def name(self) -> str: ...

    async def step(self) -> float:
        """Do one round; the seconds to rest before the next."""
        ...


def _tell_nobody(service: str, store: Waited | None) -> None:
    pass


async def run_forever(service: Step, turn: asyncio.Lock, waits: Waits = _tell_nobody) -> None:
    """Run the service's steps until cancelled; only a fault that is not a store's is raised.

    Each step holds `turn`, so whoever holds it can cancel between two steps.
    """
    pause_s = _FIRST_PAUSE_S
    while True:
        _stop_if_told()
        try:
            async with turn:
                rest_s = await service.step()
        except (StoreUnavailable, LedgerUnavailable) as error:
            if pause_s == _FIRST_PAUSE_S:
                _log.warning("%s waits for a store: %s", service.name, error)
            waits(service.name, "redis" if isinstance(error, StoreUnavailable) else "ledger")
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            continue
        if pause_s != _FIRST_PAUSE_S:
            _log.warning("%s goes on", service.name)
            waits(service.name, None)
            pause_s = _FIRST_PAUSE_S
        if rest_s:
            await asyncio.sleep(rest_s)


async def stop_between_steps(task: asyncio.Task[None], turn: asyncio.Lock, wait_s: float) -> None:
    """Cancel a service while it rests; in mid-step only if the step takes longer than `wait_s`.

    A statement that is cancelled while it is prepared leaves asyncpg's connection in disorder.
    """
    try:
        async with asyncio.timeout(wait_s), turn:
            task.cancel()
    except TimeoutError:
        task.cancel()
    await asyncio.wait([task])


def _stop_if_told() -> None:
    """Raise a cancellation that a step has lost: on Python 3.11 `asyncio.wait_for`, through which
    redis-py sends, drops one that comes as its command goes out. The task still knows of it."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
