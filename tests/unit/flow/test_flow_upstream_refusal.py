"""Which of upstream's refusals pass, and which are ours to explain."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.refusal import Case
from gateway.flow.upstream_refusal import refusal_of


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("body", [b"", b'{"error":{"message":"Incorrect API key: sk-1***9"}}'])
def test_a_refusal_of_our_key_is_never_shown(status: int, body: bytes) -> None:
    refused = refusal_of(status, body)
    assert refused is not None
    assert refused.case is Case.UPSTREAM_AUTH_FAILED
    assert "sk-" not in refused.message


@pytest.mark.parametrize(
    "error",
    [
        {"code": "insufficient_quota", "type": "insufficient_quota"},
        {"code": None, "type": "insufficient_quota"},
        {"code": "insufficient_quota", "type": None},
        {"code": "insufficient_quota"},
        {"type": "insufficient_quota", "code": 429},
        {"type": "insufficient_quota", "code": 4.29},
        {"type": "insufficient_quota", "code": ["x"]},
        {"code": "insufficient_quota", "type": {"x": 1}},
    ],
    ids=str,
)
def test_our_own_empty_account_is_ours_to_explain(error: dict[str, object]) -> None:
    refused = refusal_of(429, json.dumps({"error": {"message": "You exceeded", **error}}).encode())
    assert refused is not None
    assert (refused.case, refused.retry_after_s) == (Case.UPSTREAM_QUOTA_EXHAUSTED, 60)
    assert "your quota was not touched" in refused.message


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"null", b'"insufficient_quota"', b'{"error":null}', b'{"error":"x"}'),
        *(b'{"error":{"code":null}}', b"\xff", b'{"error":' * 100_000),
        b'{"error":{"code":"rate_limit_exceeded","message":"insufficient_quota"}}',
    ],
    ids=lambda body: ascii(body[:40]),
)
def test_any_other_429_passes(body: bytes) -> None:
    assert refusal_of(429, body) is None


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308, 399])
def test_a_redirect_is_never_followed_nor_shown(status: int) -> None:
    refused = refusal_of(status, b"")
    assert refused is not None
    assert refused.case is Case.UPSTREAM_UNAVAILABLE
    assert "redirect" in refused.message


@pytest.mark.parametrize("status", [400, 402, 404, 409, 413, 422, 500, 502, 503, 529])
def test_what_tells_nothing_of_us_passes(status: int) -> None:
    assert refusal_of(status, b'{"error":{"code":"insufficient_quota"}}') is None


@settings(deadline=None)
@given(st.integers(200, 599), st.binary())
def test_no_body_breaks_it(status: int, body: bytes) -> None:
    refusal_of(status, body)
