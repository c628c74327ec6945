"""The keys of one issuer: a secret both sides have, or the public keys of a JSON Web Key Set.

Each key serves one algorithm, which follows from what kind of key it is and never from a token (RFC
8725, section 3.1). What in a set is not for proving signatures, is private, or of a kind that was
not asked for, is not taken. Where a set comes from is not known here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
from jwt import PyJWK, PyJWTError
from jwt.algorithms import AllowedPublicKeys

SECRET_ALGORITHM = "HS256"
_KEYS_MAX = 100
# Kind and curve -> algorithm (RFC 7518, sections 6.2 and 6.3; RFC 8037, section 3.1).
_ALGORITHMS = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}
# What a public key is made of; another value of these is another key.
_MATERIAL = ("kty", "crv", "n", "e", "x", "y")

Key = AllowedPublicKeys | bytes


class NoKeys(ValueError):
    """What was read is no set of keys that can be used; the text says why."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key of a set; equal to another if it is the same key under the same name."""

    kid: str | None
    algorithm: str
    material: tuple[str, ...]
    key: AllowedPublicKeys = field(compare=False, repr=False)


class Keys(Protocol):
    """Where the keys of an issuer are found."""

    @property
    def withdrawals(self) -> int:
        """Rises when a key was withdrawn."""
        ...

    def find(self, kid: str | None, algorithm: str) -> Key | None:
        """The key of that name for that algorithm."""
        ...

    async def renew(self) -> None:
        """Look for keys that are not here yet, within bounds. TokensUnavailable when there is
        none at all."""
        ...


class SharedSecret:
    """Fulfils Keys. One secret, for HS256; whatever name a token gives it."""

    withdrawals = 0

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def find(self, kid: str | None, algorithm: str) -> Key | None:
        return self._secret if algorithm == SECRET_ALGORITHM else None

    async def renew(self) -> None: ...


def read_keys(body: bytes, algorithms: Collection[str]) -> frozenset[PublicKey]:
    """The keys of a JSON Web Key Set (RFC 7517) for these algorithms; NoKeys when there is none."""
    try:
        listed = msgspec.json.decode(body)["keys"]
    except (msgspec.DecodeError, KeyError, TypeError, RecursionError) as error:
        raise NoKeys(f"not a JSON Web Key Set ({type(error).__name__})") from None
    if not isinstance(listed, list) or len(listed) > _KEYS_MAX:
        raise NoKeys(f"not a list of at most {_KEYS_MAX} keys")
    found = frozenset(key for each in listed if (key := _read_key(each)) is not None)
    usable = frozenset(key for key in found if key.algorithm in algorithms)
    if not usable:
        raise NoKeys(f"no public key for {', '.join(sorted(algorithms))}")
    return usable


def find_key(keys: Collection[PublicKey], kid: str | None, algorithm: str) -> Key | None:
    """The key of that name. A token that names none means the only one there is."""
    of_algorithm = [key for key in keys if key.algorithm == algorithm]
    named = [key for key in of_algorithm if key.kid == kid] if kid is not None else of_algorithm
    return named[0].key if len(named) == 1 else None


def _read_key(listed: object) -> PublicKey | None:
    """One key; None when it is not for us. The set may have others."""
    if not isinstance(listed, Mapping) or "d" in listed:  # a private key that anybody can read
        return None
    if listed.get("use", "sig") != "sig" or "verify" not in listed.get("key_ops", ["verify"]):
        return None
    algorithm = _ALGORITHMS.get((str(listed.get("kty")), listed.get("crv")))
    kid = listed.get("kid")
    if algorithm is None or listed.get("alg", algorithm) != algorithm:
        return None
    try:
        key: Any = PyJWK(dict(listed), algorithm).key
    except (PyJWTError, ValueError, TypeError):
        return None
    material = tuple(str(listed.get(name)) for name in _MATERIAL)
    return PublicKey(kid if isinstance(kid, str) else None, algorithm, material, key)
