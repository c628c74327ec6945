"""Letters, and who carries them.

A letter has figures and links, not words: these are the carrier's, in templates that can be
replaced. Why a letter is not carried is said by the errors of `gateway.ports.carrying`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Letter:
    """What is said to `address`. `figures` are ready to be shown; `ways_on` are links with what
    they lead to. `key` is the same whenever this letter is sent again, and no other letter's."""

    address: str
    kind: str
    key: str
    figures: Mapping[str, str]
    ways_on: tuple[tuple[str, str], ...]
    unsubscribe_url: str


class Mail(Protocol):
    """Carries letters."""

    async def send(self, letter: Letter) -> str:
        """Returns what the server said once the letter is taken over. Undeliverable, NotNow,
        CarrierAway: it was not, as far as can be known."""
        ...

    async def rest(self) -> None:
        """There is nothing to carry for a while."""
        ...
