"""Users whom a token or a proven front names: who they are here, and what the claims change of it.

A claim is written down like an operator's change, and the audit says who claimed it. A tier counts
only if that was after the tier was last set, so an old token undoes nothing; one that the plan does
not have counts for nothing. How a token is proven is not known here.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress

import msgspec
from msgspec import structs

from gateway.core.credential import Claims, Token
from gateway.core.identity import Identity, valid_email, valid_user_id
from gateway.core.period import Calendar
from gateway.core.plan import Plan
from gateway.flow.accounts import project
from gateway.ports.clock import Clock
from gateway.ports.ledger import Conflict
from gateway.ports.quota_store import QuotaStore, StoreUnavailable
from gateway.ports.tokens import ClaimsDirectory, Tokens

_REMEMBERED_MAX = 50_000  # about 50 MB with their claims; the least recently used goes first
_log = logging.getLogger("gateway.identity")


class _Known(msgspec.Struct, gc=False):
    """Claims that were proven, and whose they are; `withdrawals` as it was before that."""

    claims: Claims
    identity: Identity
    withdrawals: int


class ClaimedUsers:
    """Tokens and claims to identities. What does not lead to a user is not remembered.

    `directory_of`: the directory, with that author for its audit.
    """

    def __init__(
        self,
        tokens: Tokens,
        directory_of: Callable[[str], ClaimsDirectory],
        store: QuotaStore,
        plan: Plan,
        clock: Clock,
    ) -> None:
        self._tokens = tokens
        self._directory_of = directory_of
        self._store = store
        self._plan = plan
        self._clock = clock
        self._known: OrderedDict[bytes | Claims, _Known] = OrderedDict()

    def remembered(self, credential: Token | Claims) -> Identity | None:
        """The user, if the credential was proven before and still holds."""
        known = self._standing(_name(credential))
        return None if known is None else known.identity

    async def again(self, credential: Token | Claims) -> Identity | None:
        """The user by the ledger; None when there is none for it. Who is blocked is not
        remembered. LedgerUnavailable, and TokensUnavailable when nobody can say whether the token
        is genuine."""
        name, withdrawals = _name(credential), self._tokens.withdrawals
        known = self._standing(name)
        claims = await self._proven(credential) if known is None else known.claims
        identity = None if claims is None else await self._who(claims, is_new=known is None)
        if claims is None or identity is None or identity.is_blocked:
            self._known.pop(name, None)
            return identity
        self._known[name] = _Known(claims, identity, withdrawals)
        if len(self._known) > _REMEMBERED_MAX:
            self._known.popitem(last=False)
        return identity

    def _standing(self, name: bytes | Claims) -> _Known | None:
        known = self._known.get(name)
        if known is None:
            return None
        is_over = known.claims.ends_ms <= self._clock.now_ms()
        if is_over or known.withdrawals != self._tokens.withdrawals:
            del self._known[name]
            return None
        self._known.move_to_end(name)
        return known

    async def _proven(self, credential: Token | Claims) -> Claims | None:
        claims: Claims | None
        if isinstance(credential, Token):
            claims = await self._tokens.prove(credential.text)
        else:
            claims = credential
        if claims is None or not valid_user_id(claims.user_id):
            return None
        return self._usable(claims)

    def _usable(self, claims: Claims) -> Claims:
        """Without an address that is none, and a tier that the plan does not have."""
        email, tier = claims.email, claims.tier
        if email is not None and not valid_email(email):
            email = None
        if tier is not None and tier not in self._plan.tiers:
            _log.warning(
                "%s says that %s is on the tier %.100r, which is not in the plan",
                claims.source, claims.user_id, tier,
            )  # fmt: skip
            tier = None
        return structs.replace(claims, email=email, tier=tier)

    async def _who(self, claims: Claims, is_new: bool) -> Identity | None:
        directory = self._directory_of(claims.source)
        identity = await directory.identity_of_user(claims.user_id)
        if identity is None and claims.may_create:
            identity = await self._made(claims, directory)
        if identity is None or identity.is_team:
            return None
        if is_new and claims.email not in (None, identity.email):
            identity = await directory.set_email(claims.user_id, claims.email)
        return await self._on_claimed_tier(claims, identity, directory)

    async def _made(self, claims: Claims, directory: ClaimsDirectory) -> Identity | None:
        tier = claims.tier or self._plan.default_tier
        calendar = Calendar(self._plan.anchor_day, self._plan.zone)
        with suppress(Conflict):  # a call beside this one was first, or the user is disabled
            return await directory.create_user(claims.user_id, tier, calendar, claims.email)
        return await directory.identity_of_user(claims.user_id)

    async def _on_claimed_tier(
        self, claims: Claims, identity: Identity, directory: ClaimsDirectory
    ) -> Identity:
        """Of a member of a team the team decides."""
        tier = claims.tier
        if tier is None or tier == identity.tier or identity.member is not None:
            return identity
        if claims.issued_ms <= identity.tier_set_ms:
            return identity
        issued_ms = min(claims.issued_ms, self._clock.now_ms())
        changed = await directory.claim_tier(claims.user_id, tier, issued_ms)
        with suppress(StoreUnavailable):  # the call itself will tell it, and the jobs if it cannot
            await project(changed, directory, self._store, self._clock)
        return changed


def _name(credential: Token | Claims) -> bytes | Claims:
    """By which it is remembered: of a token its digest alone, which is shorter."""
    return credential.digest if isinstance(credential, Token) else credential
