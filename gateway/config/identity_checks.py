"""Rules over the section `identity`: issuers nobody can mix up, secrets nobody can guess.

What would make a forged token or header count is refused before anything starts (RFC 8725). Secrets
are described, never shown; no issuer is asked here.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from gateway.config.errors import Problem
from gateway.config.identity_shape import Header, Identity, Jwt
from gateway.config.values import is_web_url

# RFC 7518, section 3.2: a key for HS256 is at least as long as its hash, 256 bits.
_SECRET_CHARACTERS_MIN = 32
_HEADER_SECRET_CHARACTERS = range(_SECRET_CHARACTERS_MIN, 1025)
_SECRET_ALGORITHM = "HS256"
# What users of Supabase write about themselves, in their own browser.
_OF_USERS = "user_metadata"
_TAKEN_HEADERS = ("authorization", "content-length", "content-type", "host", "transfer-encoding")


def check_identity(identity: Identity) -> Iterator[Problem]:
    """Everything that is wrong with the section, but for the pepper."""
    entries: dict[tuple[str, str], int] = {}
    for i, entry in enumerate(identity.jwt):
        path = f"identity.jwt[{i}]"
        yield from _keys(path, entry)
        yield from _algorithms(path, entry)
        yield from _claims(path, entry)
        for algorithm in dict.fromkeys(entry.algorithms):
            first = entries.setdefault((entry.issuer, algorithm), i)
            if first != i:
                yield Problem(
                    f"{path}.algorithms",
                    f"{algorithm} of this issuer is already taken by identity.jwt[{first}]",
                )
    if identity.header is not None:
        yield from _header("identity.header", identity.header)


def networks_of(header: Header) -> tuple[IPv4Network | IPv6Network, ...]:
    """From where the front may come; ValueError for what is no network."""
    return tuple(ip_network(peer) for peer in header.peers)


def _keys(path: str, entry: Jwt) -> Iterator[Problem]:
    if bool(entry.secret) == (entry.jwks_url is not None):
        yield Problem(path, "expected either secret (HS256) or jwks_url (the others)")
    if entry.secret and len(entry.secret.reveal()) < _SECRET_CHARACTERS_MIN:
        yield Problem(
            f"{path}.secret", f"expected at least {_SECRET_CHARACTERS_MIN} characters (256 bits)"
        )
    url = entry.jwks_url
    if url is not None and not (is_web_url(url) and _is_safe(url)):
        yield Problem(
            f"{path}.jwks_url",
            "expected https://host, without user and parameters: whoever can change the answer on "
            "its way can sign tokens; http:// is for addresses of this machine",
        )


def _is_safe(url: str) -> bool:
    parts = urlsplit(url)
    host = parts.hostname or ""
    return parts.scheme == "https" or host == "localhost" or _is_loopback(host)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _algorithms(path: str, entry: Jwt) -> Iterator[Problem]:
    path = f"{path}.algorithms"
    if not entry.algorithms:
        yield Problem(path, "expected one algorithm or more, found none")
    if len(set(entry.algorithms)) < len(entry.algorithms):
        yield Problem(path, "expected each algorithm once")
    if bool(entry.secret) == (entry.jwks_url is not None):
        return  # said already, and either may be what is meant
    if entry.jwks_url is not None and _SECRET_ALGORITHM in entry.algorithms:
        yield Problem(
            path, "expected RS256, ES256 or EdDSA with jwks_url: HS256 would take public keys, "
            "which everybody has, for a secret",
        )  # fmt: skip
    elif entry.secret and set(entry.algorithms) - {_SECRET_ALGORITHM}:
        yield Problem(path, "expected [HS256] with secret: the others need jwks_url")


def _claims(path: str, entry: Jwt) -> Iterator[Problem]:
    for name in ("user", "tier"):
        claim = getattr(entry.claims, name)
        if claim is not None and claim.partition(".")[0] == _OF_USERS:
            yield Problem(
                f"{path}.claims.{name}",
                f"{_OF_USERS} is what users write themselves; expected a claim that only the "
                "issuer writes, such as app_metadata.tier",
            )


def _header(path: str, header: Header) -> Iterator[Problem]:
    secret = header.secret
    if len(secret.reveal()) not in _HEADER_SECRET_CHARACTERS or not secret.is_header_value:
        yield Problem(
            f"{path}.secret", "expected 32 to 1024 printable ASCII characters without spaces"
        )
    taken: dict[str, str] = {}
    for key in ("name", "secret_header", "tier_header", "email_header"):
        name = getattr(header, key)
        if name is None:
            continue
        if name.lower() in _TAKEN_HEADERS:
            yield Problem(f"{path}.{key}", f"{name} has a meaning of its own")
        first = taken.setdefault(name.lower(), key)
        if first != key:
            yield Problem(f"{path}.{key}", f"{name} is already {path}.{first}")
    yield from _peers(f"{path}.peers", header)


def _peers(path: str, header: Header) -> Iterator[Problem]:
    if not header.peers:
        yield Problem(path, "expected one network or more, found none")
    for i, peer in enumerate(header.peers):
        try:
            network = ip_network(peer)
        except ValueError:
            yield Problem(
                f"{path}[{i}]", f'expected a network such as "10.1.2.0/24", found {peer!r}'
            )
            continue
        if not network.prefixlen:
            yield Problem(f"{path}[{i}]", f"{peer} is everybody; expected the network of the front")
