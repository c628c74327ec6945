"""What a caller shows to say who it is, and what is then said of its user.

A gateway key is known by its digest (`core.identity`), a token by the SHA-256 of all of it, so no
part of one ever stands for the whole. A header of a proven front shows its claims themselves. Who
proves a token is not known here.
"""

from __future__ import annotations

import hashlib
from typing import TypeAlias

import msgspec

FOR_EVER_MS = 1 << 53
# Supabase's have about 1,000, those with long lists of groups some thousands.
TOKEN_CHARS_MAX = 8192


class Token(msgspec.Struct, frozen=True, gc=False):
    """A token as it was shown, proven or not. `digest` is that of the whole `text`."""

    digest: bytes
    text: str

    def __repr__(self) -> str:
        """Without the text, which opens as much as a key does."""
        return f"Token({self.digest.hex()[:8]}...)"


class Claims(msgspec.Struct, frozen=True, gc=False):
    """What is said of one user, by somebody who was proven to say so; the words as they were said.

    `source`: who that is, for the log. `may_create`: whether a user who is not known here is made.
    `issued_ms`: when it was said; FOR_EVER_MS for what is said anew with each call, 0 when nobody
    knows. It holds before `ends_ms`.
    """

    source: str
    user_id: str
    tier: str | None = None
    email: str | None = None
    may_create: bool = False
    issued_ms: int = 0
    ends_ms: int = FOR_EVER_MS


Credential: TypeAlias = bytes | Token | Claims


def token_of(text: str) -> Token | None:
    """The token in a bearer's text; None when it cannot be one: not three parts, or too long."""
    if len(text) > TOKEN_CHARS_MAX or text.count(".") != 2 or not text.isascii():
        return None
    return Token(hashlib.sha256(text.encode()).digest(), text)
