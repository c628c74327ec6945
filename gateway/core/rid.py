"""Request ids: UUIDv7 (RFC 9562, section 5.7).

A rid is the id of the hold, of the ledger event and of the answer's `x-request-id`. Its first 48
bits are milliseconds, so ids sort by time and land side by side in the ledger's index.
"""

from __future__ import annotations

import hashlib
import uuid


def make_rid(now_ms: int, random_bytes: bytes) -> str:
    """A UUIDv7 from the caller's clock and at least ten random bytes."""
    value = int.from_bytes(now_ms.to_bytes(6, "big") + random_bytes[:10], "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))


def made_ms(rid: str) -> int:
    """When it was made, Unix milliseconds."""
    return uuid.UUID(rid).int >> 80


def derived_rid(rid: str, reason: str) -> str:
    """The id of an event that follows from another: the same parent and reason, the same id.

    The time part stays the parent's, so both rows lie close together.
    """
    tail = hashlib.blake2b(f"{rid}/{reason}".encode(), digest_size=10).digest()
    return make_rid(made_ms(rid), tail)
