"""No error, repr, listing or encoding of the configuration shows a secret.

A canary stands wherever a secret may stand, written well and badly, and must never come out.
"""

from __future__ import annotations

import json
import traceback
from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config import ConfigError, document, effective, load
from gateway.config.values import Secret, StoreUrl

# A busy machine is no failure.
unhurried = settings(deadline=None)
CANARY = "CANARY-c4n4ry"
SHIPPED = Path(__file__).parents[3] / "config.yaml"
ENVIRON = {
    "OPENAI_API_KEY": f"sk-{CANARY}",
    "QUOTA_PEPPER": f"{CANARY}-0123456789",
    "REDIS_URL": f"rediss://user:{CANARY}@redis:6379/0",
    "DATABASE_URL": f"postgresql://user:{CANARY}@postgres/quota?password={CANARY}",
}
# What may stand around a password in a URL that nobody encoded as they should.
punctuation = st.text(alphabet="@?#/:%&=+$a", max_size=4)


def test_settings_show_no_secret() -> None:
    settings = load(SHIPPED, ENVIRON)
    assert settings.upstreams["openai"].api_key.reveal() == ENVIRON["OPENAI_API_KEY"]
    texts = [repr(settings), str(settings), repr(settings.file), str(settings.redis.url)]
    texts += [json.dumps(effective(settings)), f"{settings.identity.keys.pepper}"]
    assert not [text for text in texts if CANARY in text]


def test_the_listing_says_whether_a_secret_is_set() -> None:
    secret, empty = effective(load(SHIPPED, ENVIRON)), effective(load(SHIPPED, {}))
    assert secret["upstreams"]["openai"]["api_key"] == "***"
    assert empty["upstreams"]["openai"]["api_key"] == ""
    assert secret["redis"]["url"] == "rediss://redis:6379/0"
    assert secret["ledger"]["url"] == "postgresql://postgres/quota"


def test_no_encoder_writes_a_secret() -> None:
    file = load(SHIPPED, ENVIRON).file
    with pytest.raises(TypeError):
        msgspec.json.encode(file)
    with pytest.raises(TypeError):
        json.dumps(file.identity.keys.pepper)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPENAI_API_KEY", f"{CANARY} x"),
        ("OPENAI_API_KEY", f"{CANARY}\n"),
        ("OPENAI_API_KEY", f"\u00e9{CANARY}"),
        ("QUOTA_PEPPER", CANARY),
        ("REDIS_URL", f"http://:{CANARY}@redis"),
        ("REDIS_URL", CANARY),
        ("REDIS_URL", f"redis://:{CANARY}"),
        ("REDIS_URL", f"{CANARY}://redis"),
        ("DATABASE_URL", f"mysql://u:{CANARY}@h/d"),
        ("DATABASE_URL", f"postgresql://u:{CANARY}@"),
        ("DATABASE_URL", f"postgresql:{CANARY}"),
    ],
)
def test_an_unusable_secret_is_not_repeated(name: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(SHIPPED, {**ENVIRON, name: value})
    assert CANARY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "written",
    [
        f"*{CANARY}",
        f"!{CANARY}",
        f"!!int {CANARY}",
        f"[{CANARY}",
        f"{{{CANARY}: {CANARY}}}",
        f'"{CANARY}',
        f'"\\q{CANARY}"',
        f"'{CANARY}' {CANARY}",
        f"[{CANARY}, {CANARY}]",
        f"%{CANARY}",
        f"@{CANARY}",
        f"${{{CANARY}}}",
        f'"${{{CANARY}"',
        f"- {CANARY}",
        f"{CANARY}: {CANARY}",
    ],
)
@pytest.mark.parametrize(
    "place",
    [
        '"${OPENAI_API_KEY:-}"',
        '"${QUOTA_PEPPER:-}"',
        '"${REDIS_URL:-embedded}"',
        '"${DATABASE_URL:-embedded}"',
    ],
)
@pytest.mark.parametrize("loader", [yaml.SafeLoader, yaml.CSafeLoader])
def test_a_secret_written_wrongly_into_the_file_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loader: object, place: str, written: str
) -> None:
    monkeypatch.setattr(document, "_LOADER", loader)
    file = tmp_path / "config.yaml"
    shipped = SHIPPED.read_text(encoding="utf-8")
    assert place in shipped
    file.write_text(shipped.replace(place, written), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    assert CANARY not in "".join(traceback.format_exception(caught.value))


@unhurried
@given(before=punctuation, after=punctuation)
def test_a_url_is_shown_without_its_password_however_that_is_written(
    before: str, after: str
) -> None:
    password = f"{before}{CANARY}{after}"
    for url in (
        f"redis://user:{password}@host:6379/0",
        f"redis://:{password}@host",
        f"unix://user:{password}@/run/redis.sock",
        f"postgresql://user:{password}@host/db?sslmode=require",
        f"postgresql://host/db?user=u&password={password}",
        f"postgresql://u:{password}@h1:5432,h2/db?password={password}",
    ):
        store = StoreUrl(url)
        assert store.reveal() == url
        assert CANARY not in f"{store} {store!r} {store.shown} {store.scheme}"


def test_secrets_compare_and_are_false_when_empty() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert Secret("embedded") != StoreUrl("embedded")
    assert len({Secret("a"), Secret("a")}) == 1
    assert not Secret("")
