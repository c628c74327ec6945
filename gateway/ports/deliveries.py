"""What is to be sent to whom, kept in Postgres: dealt out once, tried until it is over.

`LedgerUnavailable` means "try later". Whoever tries a delivery puts it off first, so that nobody
else tries it meanwhile, nor a process that is started after this one was killed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from gateway.core.identity import Identity
from gateway.core.period import Calendar, Period

Ending = Literal["sent", "dead", "dropped"]
WayName = Literal["mail", "webhook", "operators"]
# In whose name operators are told: their news have no user.
OPERATORS = Identity("", "", "", 0, Calendar(1, "UTC"))


@dataclass(frozen=True, slots=True)
class Way:
    """Where deliveries go: mail to the address of each reader (`address` is ''), every webhook and
    every hook of operators a way of its own. `kinds`: the news that go there."""

    name: WayName
    address: str
    kinds: tuple[str, ...]

    @property
    def channel(self) -> str:
        """Its name among deliveries and preferences."""
        return "email" if self.name == "mail" else self.name


@dataclass(frozen=True, slots=True)
class Cap:
    """What all users of a tier may use together, in a period."""

    tier: str
    tokens: int
    period: Period


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt. `attempts` counts it. `identity` is who is told; used and packs are its payer's
    by the ledger. `is_wanted`: nobody has turned this kind off since it was dealt out. `about`: of
    news of operators, which tier."""

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
    about: str = ""


class Deliveries(Protocol):
    """The list of what is to be sent."""

    async def lock(self) -> bool:
        """Become the one who sends; False: another does. Asked again, it says whether it holds."""
        ...

    def unlock(self) -> None:
        """Let another. Does not wait; may be called twice."""
        ...

    async def find(self, caps: Sequence[Cap], thresholds_percent: Sequence[int]) -> None:
        """Note what only the passing of time tells: packs that are low, end, or were credited; for
        operators, caps that are near, and what failed for good today. Drop what no way has taken
        for days: there is no such way any more."""
        ...

    async def deal(self, notices_max: int, ways: Sequence[Way]) -> None:
        """Make the deliveries of so many notifications that have none yet."""
        ...

    async def take(self, way: Way, for_s: int) -> Delivery | None:
        """The next of this way that is due, put off for so long; None where nothing is."""
        ...

    async def end(self, delivery: Delivery, state: Ending, error: str | None) -> None: ...

    async def put_off(self, delivery: Delivery, for_s: int, error: str) -> None: ...
