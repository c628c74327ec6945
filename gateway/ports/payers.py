"""Payers, by what they did: whose accounts are worth a look.

Asked for in small portions, by who looks at accounts all the time. Refuses to know what is looked
for; LedgerUnavailable means "try later".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Payers(Protocol):
    """Payers, by the record."""

    async def lately(self, from_ms: int, until_ms: int, rows_max: int) -> Sequence[str]:
        """Some of those whose calls began then, of the newest calls."""
        ...

    async def behind(self, payer: str, rows_max: int) -> Sequence[str]:
        """The next ones in the order of their ids, behind this one ('': the first)."""
        ...
