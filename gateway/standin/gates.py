"""Gates: calls wait at a name until somebody releases it.

A signal where a test would otherwise sleep. A release lets through whoever waits at that moment
and leaves no trace: who comes later waits for the next one.
"""

from __future__ import annotations

import asyncio
from collections import Counter


class Gates:
    """Calls that wait, by the name they wait at."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], str] = {}

    async def wait(self, name: str) -> None:
        """Return when `name` is released."""
        released: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[released] = name
        try:
            await released
        finally:
            self._waiting.pop(released, None)

    def release(self, name: str) -> int:
        """Let through all that wait at `name`; how many those were."""
        through = [released for released, at in self._waiting.items() if at == name]
        for released in through:
            del self._waiting[released]
            if not released.done():
                released.set_result(None)
        return len(through)

    def waiting(self) -> dict[str, int]:
        """How many calls wait, by name; names at which nobody waits are left out."""
        return dict(Counter(self._waiting.values()))
