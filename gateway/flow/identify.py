"""Whose key it is: read from the ledger at first sight, then from memory.

What is remembered may be old; the store finds that out at the very next reserve (STALE), and then
the ledger is asked again. So nothing here expires and nothing is polled. An unknown, revoked or
disabled key gets the same answer, and so does a token or a header that proves nothing; a blocked
user is told.
"""

from __future__ import annotations

from collections import OrderedDict

from gateway.core.credential import Credential, token_of
from gateway.core.identity import KEY_PREFIX, Identity, key_digest
from gateway.core.refusal import Case, Refused
from gateway.flow.claimed import ClaimedUsers
from gateway.ports.directory import Keys
from gateway.ports.ledger import LedgerUnavailable
from gateway.ports.tokens import TokensUnavailable

_REMEMBERED_MAX = 100_000  # about 50 MB of identities; the least recently used goes first
_KEY_CHARS_MAX = 200  # ours have 46; longer text is not worth a digest


class Identities:
    """Credentials to identities. `claimed`: users of tokens and headers, where such are taken."""

    def __init__(self, directory: Keys, pepper: bytes, claimed: ClaimedUsers | None = None) -> None:
        self._directory = directory
        self._pepper = pepper
        self._claimed = claimed
        self._known: OrderedDict[bytes, Identity] = OrderedDict()

    def take(self, claimed: ClaimedUsers | None) -> None:
        """From now on these say who users of tokens and headers are; keys stay as they were."""
        self._claimed = claimed

    def credential(self, shown: str) -> Credential:
        """By which a key or token is known here; Refused when it cannot be one of ours."""
        if shown.startswith(KEY_PREFIX) and len(shown) <= _KEY_CHARS_MAX and shown.isascii():
            return key_digest(shown, self._pepper)
        token = token_of(shown) if self._claimed is not None else None
        if token is None:
            raise _unknown()
        return token

    def remembered(self, credential: Credential) -> Identity | None:
        """The credential's user, if it called before."""
        if not isinstance(credential, bytes):
            return None if self._claimed is None else self._claimed.remembered(credential)
        known = self._known.get(credential)
        if known is not None:
            self._known.move_to_end(credential)
        return known

    async def of(self, credential: Credential) -> Identity:
        """The credential's user; Refused when it has none, or when the ledger cannot be asked."""
        return self.remembered(credential) or await self.again(credential)

    async def again(self, credential: Credential) -> Identity:
        """The same, read anew: what is remembered may be old. It stays while nobody can say so.
        Refused, too, when the user is blocked: who is remembered is not."""
        try:
            if isinstance(credential, bytes):
                identity = await self._of_key(credential)
            else:
                identity = await self._claimed.again(credential) if self._claimed else None
        except LedgerUnavailable as error:
            raise backend_unavailable("the user directory") from error
        except TokensUnavailable as error:
            raise backend_unavailable("the keys of the token's issuer") from error
        if identity is None:
            raise _unknown()
        if identity.is_blocked:
            raise blocked(identity)
        return identity

    async def _of_key(self, digest: bytes) -> Identity | None:
        identity = await self._directory.identity_of_key(digest)
        if identity is None or identity.is_blocked:
            self._known.pop(digest, None)
            return identity
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


def refuse_service(identity: Identity) -> None:
    """Refused for a service key: it speaks for others, and makes no calls."""
    if identity.is_service:
        raise Refused(
            Case.KEY_NOT_ALLOWED,
            "A service key books and asks for others at /quota/v1; it makes no calls. Use a user's "
            "own key here.",
        ).of(identity)


def blocked(identity: Identity) -> Refused:
    """What a user is told who is blocked."""
    return Refused(
        Case.USER_BLOCKED,
        "This account is blocked. Ask whoever gave you access to the application.",
    ).of(identity)


def _unknown() -> Refused:
    return Refused(
        Case.INVALID_API_KEY,
        "The API key is not valid for this gateway. Send a gateway key as "
        "'Authorization: Bearer qg_…'; OpenAI keys do not work here.",
    )
