"""What users want to be told of: read and changed by themselves, or by the link of a mail.

A signed link speaks for one user and one kind. Nothing here sends anything.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.core.notices import CHANNELS, KINDS, is_signed
from gateway.core.refusal import Case, Refused
from gateway.flow.identify import backend_unavailable
from gateway.ports.ledger import LedgerUnavailable
from gateway.ports.notices import Notices, Wish


class Wishes:
    """Reads and changes them. Refused: the link is not ours, or the ledger is away."""

    def __init__(self, notices: Notices, pepper: bytes) -> None:
        self._notices = notices
        self._pepper = pepper

    async def of(self, user_id: str) -> dict[Wish, bool]:
        """Every kind by every channel, and whether it is wanted."""
        try:
            said = await self._notices.wishes(user_id)
        except LedgerUnavailable as error:
            raise backend_unavailable("the ledger") from error
        return {
            (kind, channel): said.get((kind, channel), True)
            for kind in KINDS
            for channel in CHANNELS
        }

    async def change(self, user_id: str, wishes: Mapping[Wish, bool]) -> None:
        """Note these."""
        try:
            await self._notices.wish(user_id, wishes)
        except LedgerUnavailable as error:
            raise backend_unavailable("the ledger") from error

    def signed(self, user_id: str, kind: str, signature: str) -> tuple[str, str]:
        """User and kind of a link that is ours; Refused for any other."""
        if kind not in KINDS or not is_signed(self._pepper, user_id, kind, signature):
            raise Refused(
                Case.INVALID_VALUE,
                "This link is not whole. Copy it from the mail to its last character.",
                param="signature",
            )
        return user_id, kind

    async def turn_off(self, user_id: str, kind: str) -> None:
        """By mail, this kind no more."""
        await self.change(user_id, {(kind, "email"): False})
