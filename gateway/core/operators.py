"""Who runs the gateway: operators' tokens, what they may do, and by which name they are audited.

A token is made like an API key (256 random bits, stored as a digest under the pepper), begins
differently, and is looked for in a table of its own: neither ever opens what the other does.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

Scope: TypeAlias = Literal["read", "write", "money"]
"""`read` looks, `write` changes who may spend what, `money` books what stands in the ledger."""

SCOPES: tuple[Scope, ...] = ("read", "write", "money")
STATE_TOKEN = "state"
"""The id of the token in the state directory: it has every scope and stands in no table."""
_FORM = re.compile(r"qa_[A-Za-z0-9_-]{43}")
_LOGIN = re.compile(r"[A-Za-z0-9._@+-]{1,64}")


@dataclass(frozen=True, slots=True)
class Operator:
    """One who is let through. `who` stands in the audit beside each change."""

    token_id: str
    who: str
    scopes: frozenset[Scope]


def format_token(random_bytes: bytes) -> str:
    """The token made of 32 random bytes, as it is shown once."""
    return "qa_" + base64.urlsafe_b64encode(random_bytes).rstrip(b"=").decode()


def looks_like_token(text: str) -> bool:
    """Whether it is worth looking for: anything else was never given out."""
    return _FORM.fullmatch(text) is not None


def state_operator(login: str | None) -> Operator:
    """The holder of the state directory's token, who may read every secret there is: so a login
    that comes with it is believed. One that does not look like a login is left out."""
    known = login is not None and _LOGIN.fullmatch(login)
    return Operator(STATE_TOKEN, f"cli:{login}" if known else "token:state", frozenset(SCOPES))


def token_operator(token_id: str, scopes: frozenset[Scope]) -> Operator:
    """The holder of a token that was given out."""
    return Operator(token_id, f"token:{token_id}", scopes)
