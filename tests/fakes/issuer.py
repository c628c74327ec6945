"""An issuer of tokens with real keys, and tokens that are wrong in exactly one way each."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from gateway.core.credential import TOKEN_CHARS_MAX

NAME = "https://id.example.test/auth/v1"
AUDIENCE = "authenticated"
SECRET = "a-secret-of-an-issuer-0123456789abcdef"
_KINDS: dict[str, Any] = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}


@cache
def private_key(algorithm: str, number: int = 0) -> Any:
    """A key for an algorithm, the same one for the same number."""
    if algorithm == "RS256":
        return rsa.generate_private_key(65537, 2048)
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    return ed25519.Ed25519PrivateKey.generate()


def jwk(algorithm: str, kid: str | None, number: int = 0, **fields: Any) -> dict[str, Any]:
    """The public half of a key as a key set has it."""
    public = private_key(algorithm, number).public_key()
    named = {} if kid is None else {"kid": kid}
    return {**_KINDS[algorithm].to_jwk(public, as_dict=True), "alg": algorithm, **named, **fields}


def private_jwk(algorithm: str, kid: str) -> dict[str, Any]:
    """A whole key, as no set should have it."""
    whole = _KINDS[algorithm].to_jwk(private_key(algorithm), as_dict=True)
    return {**whole, "alg": algorithm, "kid": kid, "key_ops": ["verify"]}


def key_set(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def said(user_id: str = "ada", **claims: Any) -> dict[str, Any]:
    """Claims of a good token, an hour long; None takes one away."""
    now_s = int(time.time())
    good = {
        "iss": NAME, "aud": AUDIENCE, "sub": user_id, "iat": now_s, "exp": now_s + 3600,
    } | claims  # fmt: skip
    return {name: value for name, value in good.items() if value is not None}


def signed(claims: dict[str, Any], algorithm: str = "HS256", number: int = 0, **head: Any) -> str:
    """The claims under the issuer's own key; `head` goes into the head."""
    key = SECRET if algorithm == "HS256" else private_key(algorithm, number)
    return jwt.encode(claims, key, algorithm, {**head})


def assembled(head: bytes, payload: bytes, signature: bytes) -> str:
    """A token of any three parts."""
    parts = (base64.urlsafe_b64encode(part).rstrip(b"=") for part in (head, payload, signature))
    return b".".join(parts).decode()


def under_secret(head: bytes, payload: bytes, secret: bytes = SECRET.encode()) -> str:
    """A token under any head, whose HMAC is true."""
    unsigned = assembled(head, payload, b"")[:-1]
    tag = hmac.digest(secret, unsigned.encode(), hashlib.sha256)
    return f"{unsigned}.{assembled(b'', b'', tag)[2:]}"


def public_texts(algorithm: str = "RS256") -> Iterator[bytes]:
    """What everybody can know of a public key, each of which somebody once took for a secret."""
    public = private_key(algorithm).public_key()
    pem = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    yield from (pem, pem.strip(), json.dumps(jwk(algorithm, "rsa")).encode())
    yield jwk(algorithm, "rsa")["n"].encode()


def forgeries() -> Iterator[tuple[str, str]]:
    """(rule, token that breaks it alone), for an issuer with a secret for HS256 and a set of the
    keys `rsa` (RS256) and `ec` (ES256)."""
    yield from _heads()
    yield from _signatures()
    yield from _claims()
    yield from _shapes()


def _heads() -> Iterator[tuple[str, str]]:
    payload = json.dumps(said()).encode()
    for name in ("none", "None", "nOnE", ""):
        unsigned = json.dumps({"alg": name, "typ": "JWT"}).encode()
        yield f"no algorithm: {name!r}", assembled(unsigned, payload, b"")
        yield f"no algorithm, signed: {name!r}", under_secret(unsigned, payload)
    yield "no algorithm named", under_secret(b'{"typ":"JWT"}', payload)
    yield "an algorithm that is not listed", jwt.encode(said(), SECRET * 2, "HS512")
    for kind in ("logout+jwt", "dpop+jwt", "secevent+jwt", "JWE", 7, None):
        typed = json.dumps({"alg": "HS256", "typ": kind}).encode()
        yield f"another type: {kind}", under_secret(typed, payload)
    for crit in (["exp"], ["b64"], [], "exp", None, ["https://example.test/new"]):
        extended = {"alg": "HS256", "crit": crit, "https://example.test/new": 1}
        yield f"critical extension: {crit}", under_secret(json.dumps(extended).encode(), payload)
    for extension in ('"b64":true', '"b64":true,"crit":["b64"]'):
        head = f'{{"alg":"HS256",{extension}}}'.encode()
        yield f"an extension: {extension}", under_secret(head, payload)
    yield "not encoded", under_secret(b'{"alg":"HS256","b64":false,"crit":["b64"]}', payload)
    elsewhere = "http://127.0.0.1:9/"
    brought = {"jwk": jwk("RS256", "mine", 1), "jku": elsewhere, "x5u": elsewhere, "x5c": ["MII"]}
    for name, value in brought.items():
        for kid in ("mine", "rsa"):
            named = {"kid": kid, name: value}
            yield f"a key of its own: {name}, as {kid}", signed(said(), "RS256", 1, **named)
    for kid in ("../../dev/null", "' or 1=1 --", "\0", "x" * 900, "ec"):
        yield f"the name of no such key: {kid[:16]!r}", signed(said(), "RS256", kid=kid)
    yield "the name of a key for another algorithm", signed(said(), "ES256", kid="rsa")
    yield "a name that is no text", under_secret(b'{"alg":"HS256","kid":{"a":[1]}}', payload)


def _signatures() -> Iterator[tuple[str, str]]:
    payload = json.dumps(said()).encode()
    for n, public in enumerate(public_texts()):
        for kid in ("any", "rsa"):
            head = json.dumps({"alg": "HS256", "kid": kid}).encode()
            yield f"a public key as a secret: {n}, as {kid}", under_secret(head, payload, public)
    yield "an empty secret", under_secret(b'{"alg":"HS256"}', payload, b"")
    yield "another key of the same name", signed(said(), "RS256", 1, kid="rsa")
    first, body, signature = signed(said(), "ES256", kid="ec").split(".")
    yield "no signature", f"{first}.{body}."
    yield "a signature of nought", f"{first}.{body}.{'A' * len(signature)}"
    other = signed(said("eve"), "ES256", kid="ec").split(".")[1]
    yield "a signature of other claims", f"{first}.{other}.{signature}"


def _claims() -> Iterator[tuple[str, str]]:
    now_s = int(time.time())
    wrong: Any
    for wrong in (None, "https://evil.example.test", NAME + "/", [NAME], 7):
        yield f"issuer {wrong}", _by_secret(iss=wrong)
    for wrong in (None, "", "other", [], ["other"], {"a": AUDIENCE}, 7):
        yield f"audience {wrong}", _by_secret(aud=wrong)
    for wrong in (None, 0, "soon", True, [9]):
        yield f"expiry {wrong}", _by_secret(exp=wrong)
    yield "expired", _by_secret(exp=now_s - 3600)
    yield "an expiry in words", _by_secret(exp=str(now_s + 3600))
    for text in ("1e999", "NaN", "Infinity", "9" * 5000):
        claims = json.dumps(said(exp=0)).replace('"exp": 0', f'"exp": {text}')
        yield f"expiry {text[:9]}", under_secret(b'{"alg":"HS256"}', claims.encode())
    for name in ("nbf", "iat"):
        yield f"{name} to come", _by_secret(**{name: now_s + 3600})
        for wrong in ("soon", [1]):
            yield f"{name} {wrong}", _by_secret(**{name: wrong})
    for wrong in (None, 7, "", "a b", "a\n", "\u00e9", "a" * 129, ["ada"], {"a": "ada"}):
        yield f"user {str(wrong)[:9]!r}", _by_secret(sub=wrong)


def _shapes() -> Iterator[tuple[str, str]]:
    whole = signed(said())
    head, body, signature = whole.split(".")
    yield "two parts", f"{head}.{body}"
    yield "four parts", f"{whole}.{signature}"
    yield "five parts", f"{whole}.{head}.{body}"
    yield "parts of nothing", ".."
    yield "too long", signed(said(note="a" * TOKEN_CHARS_MAX))
    yield "not base64", f"{head}.{body}!!.{signature}"
    yield "claims that are a list", under_secret(b'{"alg":"HS256"}', b"[]")
    yield "claims that are no JSON", under_secret(b'{"alg":"HS256"}', b"{")
    yield "a head that is a list", under_secret(b"[]", json.dumps(said()).encode())
    deep = b'{"alg":"HS256","a":' + b"[" * 2000 + b"]" * 2000 + b"}"
    yield "a deep head", under_secret(deep, b"{}")
    yield "deep claims", under_secret(b'{"alg":"HS256"}', deep)


def _by_secret(**claims: Any) -> str:
    """A good token but for these; PyJWT would not write all of them."""
    return under_secret(b'{"alg":"HS256","typ":"JWT"}', json.dumps(said(**claims)).encode())
