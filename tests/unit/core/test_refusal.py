"""The table of refusals, case by case, and the figures that come with them."""

from __future__ import annotations

import pytest

from gateway.core.refusal import Case, QuotaView

INVALID, SERVER = "invalid_request_error", "server_error"
SPENT = (429, "insufficient_quota", False, "gateway")
TABLE = {
    # code: (status, type, whether SDKs shall try again, whose trouble)
    "insufficient_quota": SPENT,
    "member_quota_exceeded": SPENT,
    "tier_quota_exceeded": SPENT,
    "budget_exceeded": SPENT,
    "quota_in_flight": (429, "tokens", None, "gateway"),
    "concurrency_limit_exceeded": (429, "requests", None, "gateway"),
    "invalid_api_key": (401, INVALID, None, "gateway"),
    "user_blocked": (403, INVALID, None, "gateway"),
    "key_not_allowed": (403, INVALID, None, "gateway"),
    "user_unknown": (404, INVALID, None, "gateway"),
    "model_not_allowed": (403, INVALID, None, "gateway"),
    "origin_not_allowed": (403, INVALID, None, "gateway"),
    "route_not_available": (404, INVALID, None, "gateway"),
    "invalid_http": (400, INVALID, None, "gateway"),
    "request_timeout": (408, INVALID, None, "gateway"),
    "too_many_connections": (503, SERVER, None, "gateway"),
    "invalid_json": (400, INVALID, None, "gateway"),
    "invalid_value": (400, INVALID, None, "gateway"),
    "unsupported_parameter": (400, INVALID, None, "gateway"),
    "request_exceeds_quota": (400, INVALID, None, "gateway"),
    "request_too_large": (413, INVALID, None, "gateway"),
    "idempotency_key_reused": (409, INVALID, False, "gateway"),
    "idempotency_in_progress": (409, INVALID, None, "gateway"),
    "idempotency_answer_gone": (409, INVALID, False, "gateway"),
    "topup_not_available": (403, INVALID, False, "gateway"),
    "topup_conflict": (409, INVALID, False, "gateway"),
    "payment_not_proven": (400, INVALID, False, "gateway"),
    "payment_unavailable": (502, SERVER, None, "gateway"),
    "quota_backend_unavailable": (503, SERVER, None, "gateway"),
    "shutting_down": (503, SERVER, None, "gateway"),
    "internal_error": (500, SERVER, None, "gateway"),
    "upstream_auth_failed": (502, SERVER, False, "upstream"),
    "upstream_quota_exhausted": (503, SERVER, False, "upstream"),
    "upstream_unavailable": (502, SERVER, None, "upstream"),
    "upstream_timeout": (504, SERVER, None, "upstream"),
}


@pytest.mark.parametrize("case", Case, ids=lambda case: case.name.lower())
def test_each_case_looks_as_the_table_says(case: Case) -> None:
    terms = case.value
    if terms.code == "rate_limit_exceeded":  # OpenAI's one code for both limits of a minute
        wanted = "requests" if case is Case.REQUESTS_A_MINUTE else "tokens"
        assert (terms.status, terms.type, terms.try_again) == (429, wanted, None)
        return
    assert (terms.status, terms.type, terms.try_again, terms.source) == TABLE[terms.code]


def test_each_code_belongs_to_one_case() -> None:
    codes = [case.value.code for case in Case]
    assert sorted(codes) == sorted([*TABLE, *["rate_limit_exceeded"] * 2])


@pytest.mark.parametrize(
    ("limit", "used", "packs", "left"),
    [(100, 0, 0, 100), (100, 40, 0, 60), (100, 140, 0, 0), (100, 140, 5, 5), (0, 0, 0, 0)],
)
def test_what_remains_is_allowance_and_packs_and_never_below_zero(
    limit: int, used: int, packs: int, left: int
) -> None:
    view = QuotaView("free", limit, used, held_tokens=30, pack_tokens=packs, reset_at_ms=0)
    assert view.remaining_tokens == left
