"""All issuers of one process, their keys, and how these are renewed.

Nothing is fetched before somebody waits for it. Which issuers there are is the configuration's
business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.adapters.tokens.fetching import fetch_keys
from gateway.adapters.tokens.issued import IssuedTokens, Issuer, Names
from gateway.adapters.tokens.keys import Keys, SharedSecret
from gateway.adapters.tokens.remote_keys import RemoteKeys
from gateway.ports.clock import Clock


@dataclass(frozen=True, slots=True)
class IssuerTerms:
    """One issuer as it is configured: with a secret, or else with the address of its keys."""

    name: str
    audience: str
    algorithms: frozenset[str]
    secret: str
    jwks_url: str | None
    names: Names
    leeway_s: int
    may_create: bool


class Issuers:
    """`tokens` proves what they issue."""

    def __init__(self, terms: Sequence[IssuerTerms], clock: Clock) -> None:
        self._clock = clock
        self._remote: list[RemoteKeys] = []
        self.tokens = IssuedTokens([self._issuer(each) for each in terms])

    async def renew_forever(self) -> None:
        """Keep all key sets as their issuers have them."""
        await asyncio.gather(*(keys.renew_forever() for keys in self._remote))

    def _issuer(self, terms: IssuerTerms) -> Issuer:
        return Issuer(
            name=terms.name,
            audience=terms.audience,
            algorithms=terms.algorithms,
            keys=self._keys(terms),
            names=terms.names,
            leeway_s=terms.leeway_s,
            may_create=terms.may_create,
        )

    def _keys(self, terms: IssuerTerms) -> Keys:
        if terms.jwks_url is None:
            return SharedSecret(terms.secret.encode())
        remote = RemoteKeys(terms.jwks_url, terms.algorithms, fetch_keys, self._clock)
        self._remote.append(remote)
        return remote
