"""Proving the tokens of identity providers, and where what they claim is written down.

What makes a token genuine is the adapter's business; here it only has claims, or none. Keys that an
issuer has withdrawn prove nothing any more, also where they proved it before.
"""

from __future__ import annotations

from typing import Protocol

from gateway.core.credential import Claims
from gateway.core.identity import Identity
from gateway.ports.directory import Directory


class TokensUnavailable(Exception):
    """The issuer's keys are not here, so nobody can say whether its tokens are genuine."""


class Tokens(Protocol):
    """Tokens to claims."""

    @property
    def withdrawals(self) -> int:
        """Rises when a key was withdrawn: what was proven before then is to be proven again."""
        ...

    async def prove(self, text: str) -> Claims | None:
        """What the token says; None when it is not genuine, not for us or not valid now.

        Waits for nothing where the issuer's key is known. TokensUnavailable.
        """
        ...


class ClaimsDirectory(Directory, Protocol):
    """The directory, with what is claimed of users besides their tier."""

    async def set_email(self, user_id: str, email: str | None) -> Identity:
        """Conflict when there is no such user."""
        ...
