"""What the answers to the canary's calls prove."""

from __future__ import annotations

import pytest

from gateway.core import canary
from gateway.core.canary import NO_CHARGE, Reply

WELL = Reply(NO_CHARGE, "admitted", "upstream", "canary", 1_000_000)
REFUSED = Reply(429, "refused", "gateway", "insufficient_quota", 998_999)
AWAY = Reply(503, "", "gateway", "quota_backend_unavailable")
IN_OUTAGE = Reply(NO_CHARGE, "outage", "upstream", "canary")
BUSY = Reply(429, "refused", "gateway", "quota_in_flight")


def test_what_is_as_it_should_be_needs_no_words() -> None:
    assert canary.of_fitting(WELL, NO_CHARGE) is None
    assert canary.of_too_large(REFUSED) is None


@pytest.mark.parametrize(
    ("reply", "result"),
    [
        (AWAY, "unproven"),
        (IN_OUTAGE, "unproven"),
        (BUSY, "unproven"),
        (Reply(500, "", "gateway", "internal_error"), "broken"),
        (Reply(401, "", "gateway", "invalid_api_key"), "broken"),
    ],
)
def test_everything_else_is_told_with_its_reason(reply: Reply, result: str) -> None:
    for found in (canary.of_fitting(reply, NO_CHARGE), canary.of_too_large(reply)):
        assert found is not None
        assert found.result == result
        assert found.why


def test_the_answer_to_the_other_call_is_what_must_not_be() -> None:
    for found in (canary.of_fitting(REFUSED, NO_CHARGE), canary.of_too_large(WELL)):
        assert found is not None
        assert found.result == "broken"


def test_a_refusal_by_somebody_else_proves_nothing() -> None:
    found = canary.of_too_large(Reply(429, "admitted", "upstream", "insufficient_quota"))
    assert found is not None
    assert found.result == "broken"


def test_it_spends_only_where_the_call_that_never_fits_would_fit() -> None:
    assert canary.must_spend(WELL)
    assert not canary.must_spend(REFUSED)
    assert canary.SPENDS_TOKENS > canary.LIMIT_TOKENS - canary.NEVER_FITS_TOKENS
