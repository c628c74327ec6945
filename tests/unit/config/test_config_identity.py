"""The section `identity`: what is taken, and what would let a forged credential count."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config import ConfigError, Settings, effective, load

SHIPPED = Path(__file__).parents[3] / "config.yaml"
CANARY = "CANARY-c4n4ry"
SECRET = f"{CANARY}-0123456789-0123456789"
BY_SECRET = {
    "issuer": "https://abc.supabase.co/auth/v1",
    "audience": "authenticated",
    "algorithms": ["HS256"],
    "secret": SECRET,
}
BY_KEYS = {
    "issuer": "https://abc.supabase.co/auth/v1",
    "audience": "authenticated",
    "algorithms": ["ES256", "RS256"],
    "jwks_url": "https://abc.supabase.co/auth/v1/.well-known/jwks.json",
    "claims": {"tier": "app_metadata.tier"},
    "create": True,
}
HEADER = {"name": "X-User-Id", "secret_header": "X-Front-Secret", "secret": SECRET}


def loaded(folder: Path, jwt: list[dict[str, Any]], header: dict[str, Any] | None) -> Settings:
    shipped = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    shipped["identity"] |= {"jwt": jwt, "header": header}
    file = folder / "config.yaml"
    file.write_text(json.dumps(shipped, default=str), encoding="utf-8")  # is YAML, too
    return load(file, {})


def test_a_secret_a_key_set_and_a_front_may_stand_side_by_side(tmp_path: Path) -> None:
    identity = loaded(tmp_path, [BY_SECRET, BY_KEYS], HEADER).identity
    assert [entry.algorithms for entry in identity.jwt] == [("HS256",), ("ES256", "RS256")]
    assert (identity.jwt[0].claims.user, identity.jwt[0].claims.email) == ("sub", "email")
    assert (identity.jwt[0].create, identity.jwt[1].create) == (False, True)
    assert identity.header is not None
    assert identity.header.peers == ("127.0.0.0/8", "::1/128")


def test_their_secrets_are_not_shown(tmp_path: Path) -> None:
    settings = loaded(tmp_path, [BY_SECRET], HEADER)
    assert CANARY not in f"{settings} {settings.file} {json.dumps(effective(settings))}"


@pytest.mark.parametrize(
    ("changes", "key", "expected"),
    [
        ({"algorithms": ["none"]}, "[0].algorithms[0]", "one of HS256, RS256, ES256, EdDSA"),
        ({"algorithms": ["HS512"]}, "[0].algorithms[0]", "one of"),
        ({"algorithms": []}, "[0].algorithms", "one algorithm or more"),
        ({"algorithms": ["HS256", "HS256"]}, "[0].algorithms", "each algorithm once"),
        ({"algorithms": ["HS256", "RS256"]}, "[0].algorithms", "the others need jwks_url"),
        ({"secret": ""}, "[0]", "either secret"),
        ({"secret": CANARY}, "[0].secret", "at least 32 characters"),
        ({"jwks_url": BY_KEYS["jwks_url"]}, "[0]", "either secret"),
        ({"jwks_url": BY_KEYS["jwks_url"], "secret": ""}, "[0].algorithms", "public keys"),
        ({**BY_KEYS, "secret": "", "jwks_url": "http://a.test/"}, "[0].jwks_url", "https://"),
        ({**BY_KEYS, "secret": "", "jwks_url": "https://u@a.test/"}, "[0].jwks_url", "https://"),
        ({**BY_KEYS, "secret": "", "jwks_url": "file:///etc/k"}, "[0].jwks_url", "https://"),
        ({"claims": {"tier": "user_metadata.tier"}}, "[0].claims.tier", "users write themselves"),
        ({"claims": {"user": "user_metadata"}}, "[0].claims.user", "users write themselves"),
        ({"leeway_s": 301}, "[0].leeway_s", "0 to 300"),
        ({"issuer": ""}, "[0].issuer", "not empty"),
        ({"audience": None}, "[0].audience", "not empty"),
        ({"kid": "a"}, "[0].kid", "unknown key"),
    ],
)
def test_an_issuer_that_could_be_forged_is_refused(
    tmp_path: Path, changes: dict[str, Any], key: str, expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, [{**BY_SECRET, **changes}], None)
    assert [problem.path for problem in caught.value.problems] == [f"identity.jwt{key}"]
    assert expected in str(caught.value)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("missing", ["issuer", "audience", "algorithms"])
def test_who_for_whom_and_how_must_be_said(tmp_path: Path, missing: str) -> None:
    entry = copy.deepcopy(BY_SECRET)
    del entry[missing]
    with pytest.raises(ConfigError, match=rf"identity\.jwt\[0\]\.{missing}: is missing"):
        loaded(tmp_path, [entry], None)


def test_an_algorithm_of_an_issuer_has_one_entry(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="RS256 of this issuer is already taken by"):
        loaded(tmp_path, [BY_KEYS, {**BY_KEYS, "algorithms": ["RS256"]}], None)
    loaded(tmp_path, [BY_KEYS, {**BY_KEYS, "issuer": "https://other.test"}], None)


@pytest.mark.parametrize("host", ["127.0.0.1:9999", "localhost", "[::1]:8080"])
def test_keys_may_come_from_this_machine_in_the_clear(tmp_path: Path, host: str) -> None:
    loaded(tmp_path, [{**BY_KEYS, "jwks_url": f"http://{host}/keys"}], None)


@pytest.mark.parametrize(
    ("changes", "key", "expected"),
    [
        ({"secret": CANARY}, "secret", "32 to 1024 printable"),
        ({"secret": f"{SECRET} {SECRET}"}, "secret", "without spaces"),
        ({"secret": ""}, "secret", "32 to 1024 printable"),
        ({"secret": SECRET * 99}, "secret", "32 to 1024 printable"),
        ({"name": "X_User_Id"}, "name", "the name of a header"),
        ({"name": "Authorization"}, "name", "a meaning of its own"),
        ({"name": "x-front-secret"}, "secret_header", "already identity.header.name"),
        ({"tier_header": "X-USER-ID"}, "tier_header", "already identity.header.name"),
        ({"email_header": "Host"}, "email_header", "a meaning of its own"),
        ({"peers": []}, "peers", "one network or more"),
        ({"peers": ["everywhere"]}, "peers[0]", "expected a network"),
        ({"peers": ["10.0.0.1/8"]}, "peers[0]", "expected a network"),
        ({"peers": ["127.0.0.1", "0.0.0.0/0"]}, "peers[1]", "is everybody"),
        ({"peers": ["::/0"]}, "peers[0]", "is everybody"),
    ],
)
def test_a_front_that_anybody_could_be_is_refused(
    tmp_path: Path, changes: dict[str, Any], key: str, expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, [], {**HEADER, **changes})
    assert [problem.path for problem in caught.value.problems] == [f"identity.header.{key}"]
    assert expected in str(caught.value)
    assert CANARY not in str(caught.value)
