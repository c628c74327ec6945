"""Whose key it is: read from the ledger at first sight, then from memory.

What is remembered may be old; the store finds that out at the very next reserve (STALE), and then
the ledger is asked again. So nothing here expires and nothing is polled. An unknown, revoked or
disabled key gets the same answer.
"""

from __future__ import annotations

from collections import OrderedDict

from gateway.core.identity import KEY_PREFIX, Identity, key_digest
from gateway.core.refusal import Case, Refused
from gateway.ports.directory import Directory
from gateway.ports.ledger import LedgerUnavailable

_REMEMBERED_MAX = 100_000  # about 50 MB of identities; the least recently used goes first
_KEY_CHARS_MAX = 200  # ours have 46; longer text is not worth a digest


class Identities:
    """Keys to identities."""

    def __init__(self, directory: Directory, pepper: bytes) -> None:
        self._directory = directory
        self._pepper = pepper
        self._known: OrderedDict[bytes, Identity] = OrderedDict()

    def digest(self, key: str) -> bytes:
        """By which a key is known here; Refused when it cannot be one of ours."""
        if not key.startswith(KEY_PREFIX) or len(key) > _KEY_CHARS_MAX or not key.isascii():
            raise _unknown()
        return key_digest(key, self._pepper)

    def remembered(self, digest: bytes) -> Identity | None:
        """The key's user, if it called before."""
        known = self._known.get(digest)
        if known is not None:
            self._known.move_to_end(digest)
        return known

    async def of(self, digest: bytes) -> Identity:
        """The key's user; Refused when it has none, or when the ledger cannot be asked."""
        return self.remembered(digest) or await self.again(digest)

    async def again(self, digest: bytes) -> Identity:
        """The same, read anew: what is remembered may be old. It stays while nobody can say so."""
        try:
            identity = await self._directory.identity_of_key(digest)
        except LedgerUnavailable as error:
            raise backend_unavailable("the user directory") from error
        if identity is None:
            self._known.pop(digest, None)
            raise _unknown()
        self._known[digest] = identity
        if len(self._known) > _REMEMBERED_MAX:
            self._known.popitem(last=False)
        return identity


def backend_unavailable(what: str) -> Refused:
    """Our trouble, not the caller's: nothing was spent, and it is worth trying again."""
    return Refused(
        Case.QUOTA_BACKEND_UNAVAILABLE,
        f"The quota service cannot reach {what} right now. Nothing was charged; try again shortly.",
        retry_after_s=1,
    )


def _unknown() -> Refused:
    return Refused(
        Case.INVALID_API_KEY,
        "The API key is not valid for this gateway. Send a gateway key as "
        "'Authorization: Bearer qg_…'; OpenAI keys do not work here.",
    )
