"""Pauses between attempts, which all end at once when there is news.

Whoever repeats an attempt waits longer each time, so that a store in trouble is not run over. But
when it is known to be back, nobody has a reason to wait any more. What is attempted, and how long
is waited for it, is not known here.
"""

from __future__ import annotations

import asyncio


class Pauses:
    """The pauses of many; `end` is the news."""

    def __init__(self) -> None:
        self._news = asyncio.Event()

    async def rest(self, pause_s: float) -> bool:
        """Wait for so long, or for the news: True."""
        try:
            async with asyncio.timeout(pause_s):
                return await self._news.wait()
        except TimeoutError:
            return False

    def end(self) -> None:
        """Let all who wait now try again."""
        news, self._news = self._news, asyncio.Event()
        news.set()
