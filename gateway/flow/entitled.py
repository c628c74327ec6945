"""Who calls, and under which terms: the identity behind a key, its tier, and the model it asks for.

What is remembered of a user is old the moment it is read; the store finds that out at the reserve,
and then the ledger is asked anew. A refusal here never reaches the store, so the ledger is asked
before one. It refuses to know what is left of a quota.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import msgspec

from gateway.core.credential import Credential
from gateway.core.identity import Identity
from gateway.core.models import Model
from gateway.core.plan import Tier
from gateway.core.quota.reserve import ReserveReply
from gateway.core.refusal import Case, Refused
from gateway.flow.identify import Identities, backend_unavailable, refuse_service
from gateway.flow.limits import models_of
from gateway.flow.terms import Terms
from gateway.ports.directory import Directory
from gateway.ports.quota_store import QuotaStore


class Entitled(msgspec.Struct, frozen=True, gc=False):
    """Who calls, and what under. `spared`: the refusal that a shadow tier only tells."""

    identity: Identity
    tier: Tier
    model: Model
    spared: Case | None = None


class Entitlements:
    """Reads them from memory, and from the ledger where that is old."""

    def __init__(
        self, identities: Identities, directory: Directory, store: QuotaStore, terms: Terms
    ) -> None:
        self._identities = identities
        self._directory = directory
        self._store = store
        self._terms = terms

    async def of(self, credential: Credential, model_name: str) -> Entitled:
        """Whose key it is, and the terms of that call; Refused when there are none."""
        identity = self._identities.remembered(credential)
        if identity is None:
            identity = await self._identities.again(credential)
        refuse_service(identity)
        try:
            return self.allowed(identity, model_name)
        except Refused:
            if self._terms.models.find(model_name) is None:
                raise  # no entitlement could change that
            identity = await self._identities.again(credential)
            return self.allowed(identity, model_name)

    async def anew(self, credential: Credential, known: Identity) -> Identity:
        """The identity by the ledger; the known one while the ledger is away."""
        try:
            return await self._identities.again(credential)
        except Refused as refused:
            if refused.case is Case.QUOTA_BACKEND_UNAVAILABLE:
                return known
            raise

    def allowed(self, identity: Identity, model_name: str) -> Entitled:
        """The terms of a call to that model; Refused when its tier does not offer it."""
        tier = self._terms.plan.tiers.get(identity.tier)
        if tier is None:
            raise backend_unavailable(f"the terms of tier '{identity.tier}'")
        model, allowed = self._terms.models.find(model_name), models_of(tier, identity)
        if model is not None and not allowed.allows(model.name) and tier.shadow:
            return Entitled(identity, tier, model, Case.MODEL_NOT_ALLOWED)
        if model is None or not allowed.allows(model.name):
            names = [each.name for each in self._terms.models]
            offered = ", ".join(name for name in names if allowed.allows(name))
            raise Refused(
                Case.MODEL_NOT_ALLOWED,
                f"The model '{model_name}' is not available on the tier '{tier.name}'. "
                f"Available: {offered}.",
                param="model",
            ).of(identity)
        return Entitled(identity, tier, model)

    async def read_again(
        self, credential: Credential, known: Identity, reply: ReserveReply
    ) -> Identity:
        """The identity by the ledger, and its entitlement in the store if that is the older one.
        `known` is how it was asked for, and `reply` what the store said to that.

        A store that knows a later revision than the ledger was told of changes that are gone: the
        ledger came back from a backup. What it says now is given a revision past that one.
        """
        return await self.told(partial(self._identities.again, credential), known, reply)

    async def told(
        self, read: Callable[[], Awaitable[Identity]], known: Identity, reply: ReserveReply
    ) -> Identity:
        """The same, with `read` for whoever tells the identity by the ledger."""
        identity = await read()
        if identity.payer == known.payer and _is_behind(identity, reply):
            past = max(reply.rev, reply.member_rev)
            await self._directory.raise_revision(identity.payer, past)
            identity = await read()
        period = identity.calendar.period_at(reply.now_ms)
        for member in (None,) if identity.member is None else (None, identity.member):
            entitlement = await self._directory.entitlement(identity.payer, member, period.start_ms)
            if entitlement is not None:
                await self._store.entitle(entitlement, period.end_ms)
        return identity


def _is_behind(identity: Identity, reply: ReserveReply) -> bool:
    """Whether the store knows a later revision than the ledger."""
    if identity.member_rev is not None and identity.member_rev < reply.member_rev:
        return True
    return identity.rev < reply.rev
