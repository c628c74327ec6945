"""Who calls, and under which terms: the identity behind a key, its tier, and the model it asks for.

What is remembered of a user is old the moment it is read; the store finds that out at the reserve,
and then the ledger is asked anew. A refusal here never reaches the store, so the ledger is asked
before one. It refuses to know what is left of a quota.
"""

from __future__ import annotations

import msgspec

from gateway.core.identity import Identity
from gateway.core.models import Model
from gateway.core.period import Period
from gateway.core.plan import Tier
from gateway.core.refusal import Case, Refused
from gateway.flow.identify import Identities, backend_unavailable
from gateway.flow.terms import Terms
from gateway.ports.directory import Directory
from gateway.ports.quota_store import QuotaStore


class Entitled(msgspec.Struct, frozen=True, gc=False):
    """Who calls, and what under."""

    identity: Identity
    tier: Tier
    model: Model


class Entitlements:
    """Reads them from memory, and from the ledger where that is old."""

    def __init__(
        self, identities: Identities, directory: Directory, store: QuotaStore, terms: Terms
    ) -> None:
        self._identities = identities
        self._directory = directory
        self._store = store
        self._terms = terms

    async def of(self, key_digest: bytes, model_name: str) -> Entitled:
        """Whose key it is, and the terms of that call; Refused when there are none."""
        identity = self._identities.remembered(key_digest)
        if identity is None:
            identity = await self._identities.again(key_digest)
        try:
            return self.allowed(identity, model_name)
        except Refused:
            if self._terms.models.find(model_name) is None:
                raise  # no entitlement could change that
            identity = await self._identities.again(key_digest)
            return self.allowed(identity, model_name)

    async def anew(self, key_digest: bytes, known: Identity) -> Identity:
        """The identity by the ledger; the known one while the ledger is away."""
        try:
            return await self._identities.again(key_digest)
        except Refused as refused:
            if refused.case is Case.QUOTA_BACKEND_UNAVAILABLE:
                return known
            raise

    def allowed(self, identity: Identity, model_name: str) -> Entitled:
        """The terms of a call to that model; Refused when its tier does not offer it."""
        tier = self._terms.plan.tiers.get(identity.tier)
        if tier is None:
            raise backend_unavailable(f"the terms of tier '{identity.tier}'")
        model = self._terms.models.find(model_name)
        if model is None or not tier.allows(model.name):
            offered = ", ".join(each.name for each in self._terms.models if tier.allows(each.name))
            raise Refused(
                Case.MODEL_NOT_ALLOWED,
                f"The model '{model_name}' is not available on the tier '{tier.name}'. "
                f"Available: {offered}.",
                param="model",
            ).of_tier(tier.name)
        return Entitled(identity, tier, model)

    async def read_again(self, key_digest: bytes, period: Period, rev_in_store: int) -> Identity:
        """The identity by the ledger, and its entitlement in the store if that is the older one.

        A store that knows a later revision than the ledger was told of changes that are gone: the
        ledger came back from a backup. What it says now is given a revision past that one.
        """
        identity = await self._identities.again(key_digest)
        if identity.rev < rev_in_store:
            await self._directory.raise_revision(identity.payer, rev_in_store)
            identity = await self._identities.again(key_digest)
        if identity.rev > rev_in_store:
            entitlement = await self._directory.entitlement(identity.payer, None, period.start_ms)
            if entitlement is not None:
                await self._store.entitle(entitlement, period.end_ms)
        return identity
