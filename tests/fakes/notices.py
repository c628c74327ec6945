"""Notices that remember what they were told."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.ports.ledger import LedgerUnavailable
from gateway.ports.notices import Exhaustion, Wish


class SeenNotices:
    """Fulfils ports.notices.Notices; `away` times it does not answer."""

    def __init__(self) -> None:
        self.seen: list[Exhaustion] = []
        self.away = 0
        self.wanted: dict[str, dict[Wish, bool]] = {}

    async def exhausted(self, told: Exhaustion) -> None:
        if self.away:
            self.away -= 1
            raise LedgerUnavailable("away")
        self.seen.append(told)

    async def wishes(self, user_id: str) -> Mapping[Wish, bool]:
        return self.wanted.get(user_id, {})

    async def wish(self, user_id: str, wishes: Mapping[Wish, bool]) -> None:
        self.wanted[user_id] = {**self.wanted.get(user_id, {}), **wishes}
