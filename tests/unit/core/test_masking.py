"""What looks like a secret is taken out of a text, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.identity import format_key
from gateway.core.masking import masked

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("no such key: sk-proj-a1b2C3_x.", "no such key: sk-***"),
        ("sk_live_51abc, whsec_x9z8, xoxb-12-34", "sk_***, whsec_***, xoxb-***"),
        ("Incorrect key: sk-wrong*********g7h8", "Incorrect key: sk-***"),
        (f"token {JWT} has ended", "token eyJ*** has ended"),
        ("Authorization: Bearer abcdef123456", "Authorization: Bearer ***"),
        ("{'authorization': 'basic dXNlcjpwYXNz'}", "{'authorization': 'basic ***'}"),
        ("postgresql://gw:p%40ss@db:5432/quota?ssl=1", "postgresql://db:5432/…"),
        ("redis://:p/w@host:6379/0", "redis://***"),
        ("https://hooks.slack.com/services/T0/B0/XXX", "https://hooks.slack.com/…"),
        ("GET 'http://127.0.0.1:8795/v1/chat' failed", "GET 'http://127.0.0.1:8795/…' failed"),
        ("https://example.test", "https://example.test"),
        ("mail to ann.b+c@mail.example.test failed", "mail to ***@mail.example.test failed"),
    ],
)
def test_a_secret_does_not_get_through(text: str, left: str) -> None:
    assert masked(text) == left
    assert masked(left) == left, "done twice, it is the same"


@pytest.mark.parametrize(
    "text",
    [
        *("settlement 01a19467-e800-7a00-912c-b2e89f9c2cf0 is not confirmed yet", "the disk-full"),
        *(
            "task_1 risk-free qg_",
            "Redis 127.0.0.1:6379: Connection refused",
            "basic sums",
            "a @ b",
        ),
        *("gpt-4o-mini", "user-3f2a91b0c4d5", "rate_limit_exceeded", "/var/lib/x/proxy-1.spill"),
    ],
)
def test_ordinary_words_stay(text: str) -> None:
    assert masked(text) == text


@given(st.binary(min_size=32, max_size=32), st.text(max_size=20), st.text(max_size=20))
def test_no_key_of_ours_gets_through(random: bytes, before: str, after: str) -> None:
    key = format_key(random)
    assert key not in masked(f"{before} {key}{after}")
