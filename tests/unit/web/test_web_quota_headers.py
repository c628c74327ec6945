"""The quota in the headers of an answer, to the byte."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from gateway.core.idempotency import Remembered
from gateway.core.refusal import QuotaView
from gateway.ports.answer import AnswerHead
from gateway.ports.upstream import UpstreamHead
from gateway.web.quota_headers import (
    answer_headers,
    free_headers,
    quota_headers,
    replay_headers,
    reset_at,
)

VIEW = QuotaView("free", 1000, 200, 30, 5, reset_at_ms=1_796_083_200_000)
HEAD = AnswerHead(rid="r-1", status=200, content_type="text/event-stream", quota=VIEW)
THRESHOLDS = (80, 95, 100)


def headers(head: AnswerHead = HEAD) -> dict[str, str]:
    found = list(answer_headers(head, THRESHOLDS))
    assert len({name.lower() for name, _ in found}) == len(found)
    return dict(found)


def test_a_stream_tells_its_id_its_decision_and_the_quota() -> None:
    assert headers() == {
        "Content-Type": "text/event-stream",
        "Server": "quota-gateway",
        "x-request-id": "r-1",
        "x-quota-decision": "admitted",
        "x-quota-limit-tokens": "1000",
        "x-quota-remaining-tokens": "805",
        "x-quota-held-tokens": "30",
        "x-quota-reset": "2026-12-01T00:00:00Z",
    }


@pytest.mark.parametrize(
    ("status", "retry_after", "added"),
    [(200, None, {}), (429, "7", {"x-quota-source": "upstream", "Retry-After": "7"})],
)
def test_a_free_answer_tells_its_id_and_its_decision_and_of_no_quota(
    status: int, retry_after: str | None, added: dict[str, str]
) -> None:
    relayed = (("openai-version", "2020"),)
    head = UpstreamHead(status, "application/json", retry_after, "req_up", relayed)
    assert dict(free_headers(head, "r-1")) == {
        "Content-Type": "application/json",
        "Server": "quota-gateway",
        "x-request-id": "r-1",
        "x-quota-decision": "admitted",
        "openai-version": "2020",
        **added,
    }


@pytest.mark.parametrize(
    ("changed", "added"),
    [
        ({"charged_tokens": 50}, {"x-quota-charged-tokens": "50"}),
        ({"charged_tokens": 0}, {"x-quota-charged-tokens": "0"}),
        ({"output_cap_tokens": 70}, {"x-quota-output-cap-tokens": "70"}),
        ({"status": 400}, {"x-quota-source": "upstream"}),
        ({"status": 503}, {"x-quota-source": "upstream"}),
        ({"retry_after": "7"}, {"Retry-After": "7"}),
        ({"relayed": (("openai-version", "2020"),)}, {"openai-version": "2020"}),
    ],
    ids=str,
)
def test_what_is_known_besides_is_told(changed: dict[str, Any], added: dict[str, str]) -> None:
    assert headers(replace(HEAD, **changed)) == {**headers(), **added}


@pytest.mark.parametrize(
    ("used", "warning"),
    [
        *((0, None), (799, None), (800, "80"), (949, "80"), (950, "95"), (999, "95")),
        *((1000, "100"), (5000, "100")),
    ],
)
def test_the_highest_threshold_passed_is_the_warning(used: int, warning: str | None) -> None:
    view = replace(VIEW, used_tokens=used)
    assert dict(quota_headers(view, "admitted", THRESHOLDS)).get("x-quota-warning") == warning


def test_a_tier_without_an_allowance_has_nothing_to_warn_of() -> None:
    view = replace(VIEW, limit_tokens=0, used_tokens=0)
    assert "x-quota-warning" not in dict(quota_headers(view, "refused", THRESHOLDS))


def test_without_thresholds_there_is_no_warning() -> None:
    view = replace(VIEW, used_tokens=5000)
    assert "x-quota-warning" not in dict(quota_headers(view, "admitted", ()))


@pytest.mark.parametrize(
    ("at_ms", "shown"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_796_083_199_999, "2026-11-30T23:59:59Z"),
        (1_774_746_000_000, "2026-03-29T01:00:00Z"),
    ],
)
def test_a_reset_is_shown_in_utc_to_the_second(at_ms: int, shown: str) -> None:
    assert reset_at(replace(VIEW, reset_at_ms=at_ms)) == shown


def test_an_answer_given_again_names_the_first_call_and_charges_nothing() -> None:
    first = Remembered(
        "ada", "once", "r-1", b"", "kept", status=200, content_type="text/event-stream"
    )
    assert list(replay_headers(first)) == [
        ("Content-Type", "text/event-stream"),
        ("Server", "quota-gateway"),
        ("x-request-id", "r-1"),
        ("x-quota-decision", "admitted"),
        ("x-quota-charged-tokens", "0"),
        ("idempotent-replayed", "true"),
    ]
