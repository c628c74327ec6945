"""Issuers of tokens as they are configured, with their secrets unwrapped.

A module of its own, since importing it loads all that proves tokens: a tenth of a start that only
those should wait for who use it.
"""

from __future__ import annotations

from gateway.adapters.tokens.issued import Names
from gateway.adapters.tokens.opening import Issuers, IssuerTerms
from gateway.config import Settings
from gateway.ports.clock import Clock


def issuers_of(settings: Settings, clock: Clock) -> Issuers:
    """All of them; they know nothing yet."""
    return Issuers(
        [
            IssuerTerms(
                name=entry.issuer,
                audience=entry.audience,
                algorithms=frozenset(entry.algorithms),
                secret=entry.secret.reveal(),
                jwks_url=entry.jwks_url,
                names=Names(entry.claims.user, entry.claims.tier, entry.claims.email),
                leeway_s=entry.leeway_s,
                may_create=entry.create,
            )
            for entry in settings.identity.jwt
        ],
        clock,
    )
