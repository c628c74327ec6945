"""What a request shows to say who calls: a bearer's key or token, or a header of a proven front.

A header names a user only if the front proves itself, by its address and a secret, with this very
request. Without that the header is nothing, as it is under every other spelling: only this one
name is ever read, and no header of a client is ever sent upstream. Whose it is, is not known here.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

from gateway.core.credential import FOR_EVER_MS, Claims, Credential
from gateway.flow.identify import Identities
from gateway.web.http_request import HttpRequest
from gateway.web.request import bearer_key

_PEERS_KEPT = 4096
_VALUE_CHARS_MAX = 1024  # the longest that is worth a look: a secret; ids and addresses are shorter


@dataclass(frozen=True, slots=True)
class PeerTerms:
    """The headers of a front: by which of them it proves itself, and what the others say.

    `peers`: from where it may come. `secret`: printable ASCII. `may_create`: whether users whom it
    names first are made.
    """

    name: str
    secret_header: str
    secret: str
    tier_header: str | None
    email_header: str | None
    peers: tuple[IPv4Network | IPv6Network, ...]
    may_create: bool


class TrustedPeer:
    """The one server that may say in a header who calls."""

    def __init__(self, terms: PeerTerms) -> None:
        self._terms = terms
        self._secret = terms.secret.encode()
        self._is_peer = lru_cache(_PEERS_KEPT)(self._is_in_a_network)

    def claims(self, request: HttpRequest) -> Claims | None:
        """What the front says; None when it says nothing, or somebody else does. A name that is
        there and cannot be that of one user is nobody's, whatever the caller shows besides."""
        terms = self._terms
        if terms.name not in request.headers or not self._is_proven(request):
            return None
        return Claims(
            source=f"the header {terms.name}",
            user_id=_only(request, terms.name) or "",
            tier=_only(request, terms.tier_header),
            email=_only(request, terms.email_header),
            may_create=terms.may_create,
            issued_ms=FOR_EVER_MS,
        )

    def _is_proven(self, request: HttpRequest) -> bool:
        shown = (_only(request, self._terms.secret_header) or "").encode(errors="surrogateescape")
        is_secret = hmac.compare_digest(shown, self._secret)
        peer = request.peer()
        return is_secret and peer is not None and self._is_peer(peer)

    def _is_in_a_network(self, peer: str) -> bool:
        address = ip_address(peer)
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._terms.peers)


class Callers:
    """Requests to credentials. `peer`: None where no header is heeded, and none is looked at."""

    def __init__(self, identities: Identities, peer: TrustedPeer | None) -> None:
        self.identities = identities
        self._peer = peer

    def credential(self, request: HttpRequest) -> Credential:
        """By which the caller is known; Refused when there is nothing that could be known."""
        if self._peer is not None:
            claims = self._peer.claims(request)
            if claims is not None:
                return claims
        return self.identities.credential(bearer_key(request))


def _only(request: HttpRequest, name: str | None) -> str | None:
    """The header's one value; None when there is none, more than one, or too long a one."""
    values = request.headers.getall(name, []) if name is not None else []
    return values[0] if len(values) == 1 and len(values[0]) <= _VALUE_CHARS_MAX else None
