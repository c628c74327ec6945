"""Settlements on disk: what Redis has not confirmed outlives the process that made it.

A process that is killed while Redis is silent would take with it what only its memory has. What is
kept here is found by the next process of the same state directory. Keeping is for trouble only:
nothing is written, and no system call made, while Redis answers in time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from gateway.core.quota.settle import Settlement


class Spill(Protocol):
    """Of one process. Nothing here raises or awaits: a client's answer may be waiting."""

    def keep(self, settlement: Settlement) -> None:
        """Write it down before returning, in place of what was kept of its rid until now. What
        cannot be written is counted and logged, and lives on in memory only."""
        ...

    def done(self, rid: str) -> None:
        """It need not be sent again. Of a rid that is not kept: nothing happens."""
        ...

    def left(self) -> Iterator[Settlement]:
        """Take over what processes that have died left behind; it stays kept until it is done."""
        ...
