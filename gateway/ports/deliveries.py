"""What is to be sent to whom, kept in Postgres: dealt out once, tried until it is over.

`LedgerUnavailable` means "try later". Whoever tries a delivery puts it off first, so that nobody
else tries it meanwhile, nor a process that is started after this one was killed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from gateway.core.identity import Identity

Ending = Literal["sent", "dead", "dropped"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt. `attempts` counts it. `identity` is who is told; used and packs are its payer's
    by the ledger. `is_wanted`: nobody has turned this kind off since it was dealt out."""

    notification_id: int
    channel: str
    address: str
    attempts: int
    kind: str
    threshold: int
    at_ms: int
    period_ms: int
    now_ms: int
    identity: Identity
    facts: Mapping[str, int | str]
    used_tokens: int
    pack_tokens: int
    is_wanted: bool


class Deliveries(Protocol):
    """The list of what is to be sent."""

    async def lock(self) -> bool:
        """Become the one who sends; False: another does. Asked again, it says whether it holds."""
        ...

    def unlock(self) -> None:
        """Let another. Does not wait; may be called twice."""
        ...

    async def find(self) -> None:
        """Note what only the passing of time tells: packs that are low, end, or were credited."""
        ...

    async def deal(self, notices_max: int) -> None:
        """Make the deliveries of so many notifications that have none yet."""
        ...

    async def take(self, for_s: int) -> Delivery | None:
        """The next that is due, put off for so long; None where nothing is."""
        ...

    async def end(self, delivery: Delivery, state: Ending, error: str | None) -> None: ...

    async def put_off(self, delivery: Delivery, for_s: int, error: str) -> None: ...
