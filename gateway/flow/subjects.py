"""Whose quota a request of `/quota/v1` is about, and whether its sender may ask.

A user's credential speaks for that user alone; a service key speaks for whoever it names, and for
nobody where it names none. What is remembered of those named may be old, as of those who call: the
store finds that out, or the ledger is asked. What is asked about them is not known here.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from gateway.core.credential import Credential
from gateway.core.identity import Identity
from gateway.core.refusal import Case, Refused
from gateway.flow.identify import Identities, backend_unavailable
from gateway.ports.directory import Directory
from gateway.ports.ledger import LedgerUnavailable

_NAMED_MAX = 20_000  # about 10 MB; the least recently named goes first


@dataclass(frozen=True, slots=True)
class Subject:
    """A user as it is known, and the credential that speaks for it: its own, or a service's."""

    identity: Identity
    credential: Credential
    by_service: bool = False


class Subjects:
    """Finds them, and reads them anew."""

    def __init__(self, identities: Identities, directory: Directory) -> None:
        self._identities = identities
        self._directory = directory
        self._named: OrderedDict[str, Identity] = OrderedDict()

    async def of(self, credential: Credential, user_id: str | None) -> Subject:
        """Whom the request is about. Refused: unknown, or not the sender's to ask about."""
        sender = self._identities.remembered(credential)
        if sender is None:
            sender = await self._identities.again(credential)
        elif sender.is_service:  # no reserve of its own finds out that it was revoked
            sender = await self._anew(credential, sender)
        if sender.is_service:
            if user_id is None:
                raise Refused(
                    Case.INVALID_VALUE,
                    "A service key speaks for others: name the user in 'user'.",
                    param="user",
                )
            known = self._named.get(user_id) or await self._read(user_id)
            return Subject(known, credential, by_service=True)
        if user_id not in (None, sender.user_id):
            raise Refused(
                Case.KEY_NOT_ALLOWED,
                "This key speaks for its own user only. To name another one, a service key is "
                "needed.",
                param="user",
            ).of(sender)
        return Subject(sender, credential)

    async def again(self, subject: Subject) -> Subject:
        """The same by the ledger. Refused when it is gone, or when the ledger cannot be asked."""
        if not subject.by_service:
            return Subject(await self._identities.again(subject.credential), subject.credential)
        identity = await self._read(subject.identity.user_id)
        return Subject(identity, subject.credential, by_service=True)

    async def newest(self, subject: Subject) -> Subject:
        """The same by the ledger, or as it is known while the ledger is away."""
        try:
            return await self.again(subject)
        except Refused as refused:
            if refused.case is Case.QUOTA_BACKEND_UNAVAILABLE:
                return subject
            raise

    async def _anew(self, credential: Credential, known: Identity) -> Identity:
        return (await self.newest(Subject(known, credential))).identity

    async def _read(self, user_id: str) -> Identity:
        try:
            identity = await self._directory.identity_of_user(user_id)
        except LedgerUnavailable as error:
            raise backend_unavailable("the user directory") from error
        if identity is None:
            self._named.pop(user_id, None)
            shown = ascii(user_id[:128])
            raise Refused(Case.USER_UNKNOWN, f"There is no user {shown} here.", param="user")
        self._named[user_id] = identity
        self._named.move_to_end(user_id)
        if len(self._named) > _NAMED_MAX:
            self._named.popitem(last=False)
        return identity
