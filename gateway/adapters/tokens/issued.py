"""Tokens proven by the rules of RFC 8725, with PyJWT.

A token's own head decides nothing: issuer and algorithm lead to one entry of the configuration, and
its key serves one algorithm. Keys in a head or at an address it names (`jwk`, `jku`, `x5u`) are not
looked at. Every token that is refused is refused alike, whatever is wrong with it.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from jwt import PyJWT, PyJWTError

from gateway.adapters.tokens.keys import Key, Keys
from gateway.core.credential import FOR_EVER_MS, Claims
from gateway.core.identity import valid_user_id

# What a token that says who calls may call itself (RFC 7519, section 5.1; RFC 9068, section 2.1).
# Others are signed by the same keys for other ends: logouts, proofs of possession.
_TYPES = frozenset(("jwt", "at+jwt", "application/at+jwt"))
# PyJWT raises its own, but for what JSON allows and its checks did not expect.
_WRONG = (PyJWTError, ValueError, TypeError, KeyError, OverflowError, RecursionError)
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_log = logging.getLogger("gateway.tokens")


@dataclass(frozen=True, slots=True)
class Names:
    """The claims to read: a name, or names inside each other with dots between."""

    user: str
    tier: str | None
    email: str | None


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who issues tokens, by which algorithms, for whom. `leeway_s`: how far clocks may differ."""

    name: str
    audience: str
    algorithms: frozenset[str]
    keys: Keys
    names: Names
    leeway_s: int
    may_create: bool


class IssuedTokens:
    """Fulfils ports.tokens.Tokens. No two issuers have both name and algorithm in common."""

    def __init__(self, issuers: Sequence[Issuer]) -> None:
        self._issuers = {(each.name, alg): each for each in issuers for alg in each.algorithms}
        self._keys = [each.keys for each in issuers]
        self._jwt = PyJWT({"require": ["exp", "iss", "aud"], "enforce_minimum_key_length": True})

    @property
    def withdrawals(self) -> int:
        return sum(keys.withdrawals for keys in self._keys)

    async def prove(self, text: str) -> Claims | None:
        try:
            head, said = _unproven(text)
            algorithm, kid = str(head.get("alg")), head.get("kid")
            issuer = self._issuers.get((str(said.get("iss")), algorithm))
            if issuer is None:
                return None
            key = issuer.keys.find(kid, algorithm)
            if key is None:
                await issuer.keys.renew()
                key = issuer.keys.find(kid, algorithm)
            return None if key is None else self._claims(text, issuer, key, algorithm)
        except _WRONG as error:
            _log.debug("a token is not valid: %s", type(error).__name__)
            return None

    def _claims(self, text: str, issuer: Issuer, key: Key, algorithm: str) -> Claims | None:
        proven = self._jwt.decode_complete(
            text,
            key,
            [algorithm],
            audience=issuer.audience,
            issuer=issuer.name,
            leeway=issuer.leeway_s,
        )
        head, said = proven["header"], proven["payload"]
        if "crit" in head or "b64" in head:
            raise ValueError("a head with extensions, and none is known here")
        if str(head.get("typ", "jwt")).lower() not in _TYPES:
            raise ValueError("another kind of token")
        user_id = _claim(said, issuer.names.user)
        if user_id is None or not valid_user_id(user_id):
            _log.warning(
                "a token of %s has no user id in its claim %s: expected 1 to 128 letters, digits "
                "and ._:@+-, the first a letter or digit", issuer.name, issuer.names.user,
            )  # fmt: skip
            return None
        return Claims(
            source=issuer.name,
            user_id=user_id,
            tier=_claim(said, issuer.names.tier),
            email=_claim(said, issuer.names.email),
            may_create=issuer.may_create,
            issued_ms=_ms(said.get("iat", 0)),
            ends_ms=min(_ms(said["exp"]) + issuer.leeway_s * 1000, FOR_EVER_MS),
        )


def _unproven(text: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Head and claims as they stand there, only to find out by which key they would be proven."""
    head, claims, _ = (base64.urlsafe_b64decode(f"{part}==") for part in text.split("."))
    return _decode(head), _decode(claims)


def _claim(said: Mapping[str, Any], name: str | None) -> str | None:
    """The text of a claim; None where there is none. Some issuers have dots in a single name."""
    if name is None:
        return None
    found: Any = said
    for part in (name,) if name in said else name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found if isinstance(found, str) and found else None


def _ms(seconds: object) -> int:
    """PyJWT takes texts for times too; a time is a number (RFC 7519, section 2)."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError("a time that is no number")
    return int(seconds) * 1000
