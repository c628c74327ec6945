"""One address of somebody's server that takes messages by HTTP.

What is in a message, and who may read it, is not known here. Why one is not taken is said by the
errors of `gateway.ports.carrying`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Hook(Protocol):
    """Takes messages."""

    @property
    def name(self) -> str:
        """The address as it may be shown: its path may be a secret."""
        ...

    async def post(self, headers: Mapping[str, str], body: bytes) -> None:
        """Returns once the server has said that it took it. Undeliverable, NotNow, CarrierAway: it
        has not, as far as can be known."""
        ...

    async def rest(self) -> None:
        """There is nothing to carry for a while."""
        ...
