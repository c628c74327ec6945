"""Kinds of news, who wants which, and the link by which one kind is turned off.

The link of a mail carries a signature instead of a sign-in: whoever has the mail may turn off this
kind of mail for the user it went to, and nothing else. The signature is under the pepper of API
keys, in a domain of its own.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Literal, get_args

Kind = Literal["crossing", "exhausted", "pack_low", "pack_ends", "payment_credited"]
OperatorsKind = Literal["tier_cap_near", "dead_rows", "dead_deliveries", "canary_failed"]
# What users choose. Webhooks are the application's own: no user turns them off.
Channel = Literal["email"]
KINDS: tuple[Kind, ...] = get_args(Kind)
OPERATORS_KINDS: tuple[OperatorsKind, ...] = get_args(OperatorsKind)
CHANNELS: tuple[Channel, ...] = get_args(Channel)
_DOMAIN = "quota-gateway unsubscribe 1"


def unsubscribe_signature(pepper: bytes, user_id: str, kind: str) -> str:
    """43 characters that only the gateway can make."""
    signed = "\n".join((_DOMAIN, kind, user_id)).encode()
    digest = hmac.new(pepper, signed, hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def is_signed(pepper: bytes, user_id: str, kind: str, signature: str) -> bool:
    """Whether this is that signature; takes the same time whatever is wrong."""
    expected = unsubscribe_signature(pepper, user_id, kind)
    return hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace"))
