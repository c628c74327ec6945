"""A token is proven by every rule at once; whatever is wrong with it, it says nothing."""

from __future__ import annotations

import json
import time
from functools import cache
from typing import Any

import jwt
import pytest

from gateway.adapters.tokens.issued import IssuedTokens, Issuer, Names
from gateway.adapters.tokens.keys import Key, Keys, SharedSecret, find_key, read_keys
from gateway.core.credential import Claims, token_of
from tests.fakes.issuer import (
    AUDIENCE,
    NAME,
    SECRET,
    forgeries,
    jwk,
    key_set,
    said,
    signed,
    under_secret,
)

ALGORITHMS = ("RS256", "ES256", "EdDSA")


class ReadKeys:
    """A key set that was read once. `renewed` counts who asked for more."""

    withdrawals = 0

    def __init__(self, body: bytes, algorithms: tuple[str, ...] = ALGORITHMS) -> None:
        self._keys = read_keys(body, algorithms)
        self.renewed = 0

    def find(self, kid: str | None, algorithm: str) -> Key | None:
        return find_key(self._keys, kid, algorithm)

    async def renew(self) -> None:
        self.renewed += 1


def issuer(keys: Keys, *algorithms: str, **changes: Any) -> Issuer:
    fields = {
        "name": NAME,
        "audience": AUDIENCE,
        "algorithms": frozenset(algorithms),
        "keys": keys,
        "names": Names("sub", "app_metadata.tier", "email"),
        "leeway_s": 30,
        "may_create": True,
    }
    return Issuer(**{**fields, **changes})


def both() -> IssuedTokens:
    """The issuer of `forgeries`: one with a secret and, under the same name, one with a set."""
    published = ReadKeys(key_set(jwk("RS256", "rsa"), jwk("ES256", "ec")))
    return IssuedTokens(
        [
            issuer(SharedSecret(SECRET.encode()), "HS256"),
            issuer(published, "RS256", "ES256"),
        ]
    )


async def prove(token: str) -> Claims | None:
    """As the gateway does it: what cannot be a token is not looked at."""
    shown = token_of(token)
    return None if shown is None else await both().prove(shown.text)


@cache
def forged() -> dict[str, str]:
    return dict(forgeries())


@pytest.mark.parametrize("rule", [rule for rule, _ in forgeries()])
async def test_a_forged_token_proves_nothing(rule: str) -> None:
    assert await prove(forged()[rule]) is None


@pytest.mark.parametrize(
    ("algorithm", "head"),
    [
        *(("HS256", {}), ("HS256", {"kid": "any"}), ("HS256", {"typ": "at+jwt"})),
        *(("RS256", {"kid": "rsa"}), ("ES256", {"kid": "ec"}), ("ES256", {})),
        *(("RS256", {"kid": "rsa", "jku": "http://127.0.0.1:9/", "x5u": "http://127.0.0.1:9/"}),),
    ],
)
async def test_a_true_token_says_who_it_is(algorithm: str, head: dict[str, Any]) -> None:
    claims = said("ada", email="ada@example.test", app_metadata={"tier": "lite"})
    proven = await prove(signed(claims, algorithm, **head))
    assert proven == Claims(
        source=NAME,
        user_id="ada",
        tier="lite",
        email="ada@example.test",
        may_create=True,
        issued_ms=claims["iat"] * 1000,
        ends_ms=(claims["exp"] + 30) * 1000,
    )


async def test_ed25519_is_taken_where_it_is_listed() -> None:
    tokens = IssuedTokens([issuer(ReadKeys(key_set(jwk("EdDSA", "ed"))), "EdDSA")])
    assert await tokens.prove(signed(said(), "EdDSA", kid="ed")) is not None
    assert await both().prove(signed(said(), "EdDSA", kid="ed")) is None


async def test_a_head_without_type_and_several_audiences_are_usual() -> None:
    payload = json.dumps(said(aud=["other", AUDIENCE])).encode()
    assert await prove(under_secret(b'{"alg":"HS256"}', payload)) is not None


async def test_the_leeway_bounds_what_clocks_may_differ() -> None:
    now_s = int(time.time())
    assert await prove(signed(said(exp=now_s - 10))) is not None
    assert await prove(signed(said(exp=now_s - 60))) is None
    assert await prove(signed(said(nbf=now_s + 10, iat=now_s + 10))) is not None
    assert await prove(signed(said(nbf=now_s + 60))) is None


@pytest.mark.parametrize(
    "claims",
    [
        *({}, {"app_metadata": None}, {"app_metadata": "lite"}, {"app_metadata": ["tier"]}),
        *({"app_metadata": {"tier": 7}}, {"app_metadata": {"tier": ""}}, {"email": ["a@b"]}),
    ],
)
async def test_a_claim_that_is_no_text_is_none(claims: dict[str, Any]) -> None:
    proven = await prove(signed(said(**claims)))
    assert proven is not None
    assert (proven.tier, proven.email) == (None, None)


async def test_a_name_with_dots_in_it_is_found_as_it_stands() -> None:
    names = Names("sub", "https://example.test/tier", None)
    tokens = IssuedTokens([issuer(SharedSecret(SECRET.encode()), "HS256", names=names)])
    claims = said(email="ada@example.test", **{"https://example.test/tier": "full"})
    proven = await tokens.prove(signed(claims))
    assert proven is not None
    assert (proven.tier, proven.email) == ("full", None)


async def test_an_issuer_of_another_name_has_keys_of_its_own() -> None:
    """What one issuer signs in the name of another is forged, though both are listed."""
    other = ReadKeys(key_set(jwk("RS256", "rsa", 1)))
    tokens = IssuedTokens(
        [
            issuer(ReadKeys(key_set(jwk("RS256", "rsa"))), "RS256"),
            issuer(other, "RS256", name="https://other.example.test"),
        ]
    )
    theirs = said(iss="https://other.example.test")
    assert await tokens.prove(signed(theirs, "RS256", 1, kid="rsa")) is not None
    assert await tokens.prove(signed(theirs, "RS256", 0, kid="rsa")) is None
    assert await tokens.prove(signed(said(), "RS256", 1, kid="rsa")) is None


async def test_keys_of_supabase_s_own_are_no_user() -> None:
    """`anon` and `service_role` are tokens under the same secret, printed in every page."""
    now_s = int(time.time())
    for role in ("anon", "service_role"):
        claims = {"iss": "supabase", "ref": "abc", "role": role, "iat": now_s, "exp": now_s + 999}
        assert await prove(jwt.encode(claims, SECRET, "HS256")) is None


async def test_only_a_key_that_is_not_here_is_asked_for() -> None:
    keys = ReadKeys(key_set(jwk("RS256", "rsa"), jwk("ES256", "ec")))
    tokens = IssuedTokens([issuer(keys, "RS256", "ES256")])
    await tokens.prove(signed(said(), "RS256", kid="rsa"))
    await tokens.prove(signed(said(), "RS256", 1, kid="rsa"))
    await tokens.prove(signed(said(iss="other"), "RS256", kid="new"))
    assert keys.renewed == 0
    await tokens.prove(signed(said(), "RS256", kid="new"))
    assert keys.renewed == 1
