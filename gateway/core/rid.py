"""Request ids: UUIDv7 (RFC 9562, section 5.7).

A rid is the id of the hold, of the ledger event and of the answer's `x-request-id`. Its first 48
bits are milliseconds, so ids sort by time and land side by side in the ledger's index.
"""

from __future__ import annotations

import hashlib
import uuid

_BITS_OF_TIME = 48
_COUNT_MAX = 0xFFF


class Rids:
    """Makes the rids of one process, each greater than the one before, none ever twice.

    RFC 9562, section 6.2, method 1: the 12 bits after the time count within a millisecond. The 62
    after them are random and the process's own, which is what tells its rids from those of all
    others; so give each process its own bytes, after it was forked. Rids can be guessed from each
    other: they are names, and open nothing.
    """

    __slots__ = ("_count", "_ms", "_own", "_time")

    def __init__(self, random_bytes: bytes) -> None:
        """`random_bytes`: at least eight that nobody else has."""
        if len(random_bytes) < 8:
            raise ValueError(
                f"a process needs 8 random bytes for its rids, not {len(random_bytes)}"
            )
        own = f"{int.from_bytes(random_bytes[:8], 'big') & ~(0x3 << 62) | 0x2 << 62:016x}"
        self._own = f"{own[:4]}-{own[4:]}"
        self._ms = -1
        self._count = 0
        self._time = ""

    def next(self, now_ms: int) -> str:
        """The next one. Where the clock stands still for 4,096 of them, or went back, the time in
        them runs on by itself. OverflowError for a time of more than 48 bits."""
        if now_ms > self._ms:
            self._begin(now_ms)
        elif self._count == _COUNT_MAX:
            self._begin(self._ms + 1)
        else:
            self._count += 1
        return f"{self._time}-7{self._count:03x}-{self._own}"

    def _begin(self, ms: int) -> None:
        if ms >> _BITS_OF_TIME:
            raise OverflowError(f"{ms} ms is a time beyond {_BITS_OF_TIME} bits")
        time = f"{ms:012x}"
        self._time = f"{time[:8]}-{time[8:]}"
        self._ms, self._count = ms, 0


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
