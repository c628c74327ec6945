"""Signatures of webhooks, as "Standard Webhooks" has them, so that its libraries verify ours.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
The signature covers id, time and the raw body. What is in the body is not known here.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

SECRET_PREFIX = "whsec_"
_KEY_BYTES = range(24, 65)


def signing_key(secret: str) -> bytes:
    """The key in `whsec_<base64>`; ValueError for anything else, or for a key of a length that is
    not 24 to 64 bytes."""
    if not secret.startswith(SECRET_PREFIX):
        raise ValueError(f"does not begin with {SECRET_PREFIX}")
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError("is no base64") from None
    if len(key) not in _KEY_BYTES:
        raise ValueError("has not 24 to 64 bytes")
    return key


def signed_headers(key: bytes, message_id: str, at_s: int, body: bytes) -> dict[str, str]:
    """The three headers of a message that is sent at this second."""
    signed = f"{message_id}.{at_s}.".encode() + body
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
