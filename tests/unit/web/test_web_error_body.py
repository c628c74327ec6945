"""Each refusal as a client sees it: status, headers and JSON, to the byte."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from gateway.core.refusal import Case, QuotaRefusal, QuotaView, Refused, TopUp, Upgrade
from gateway.web.error_body import refusal_response
from gateway.web.response import Whole

RID = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
VIEW = QuotaView("free", 1000, 960, 30, 0, reset_at_ms=1_796_083_200_000)


def answer(refused: Refused) -> Whole:
    return refusal_response(refused, RID, (80, 95, 100))


def document(response: Whole) -> Any:
    assert isinstance(response.body, bytes)
    return json.loads(response.body)


@pytest.mark.parametrize("case", Case, ids=lambda case: case.name.lower())
def test_each_case_has_its_status_its_json_and_its_headers(case: Case) -> None:
    terms = case.value
    response = answer(Refused(case, "No.", param="model"))
    expected = {
        "Content-Type": "application/json",
        "x-request-id": RID,
        "Server": "quota-gateway",
        "x-quota-source": terms.source,
    }
    if terms.source == "gateway":
        expected["x-quota-decision"] = "refused"
    if terms.try_again is False:
        expected["x-should-retry"] = "false"
    assert response.status == terms.status
    assert dict(response.headers) == expected
    assert (
        response.body
        == json.dumps(
            {
                "error": {
                    "message": f"No. (request ID {RID})" if terms.status >= 500 else "No.",
                    "type": terms.type,
                    "param": "model",
                    "code": terms.code,
                }
            },
            separators=(",", ":"),
        ).encode()
    )


@pytest.mark.parametrize("case", [Case.MONTH_USED_UP, Case.UPSTREAM_QUOTA_EXHAUSTED])
def test_what_trying_again_cannot_help_is_not_tried_again_by_sdks(case: Case) -> None:
    assert dict(answer(Refused(case, "No.")).headers)["x-should-retry"] == "false"


@pytest.mark.parametrize("case", [Case.QUOTA_IN_FLIGHT, Case.QUOTA_BACKEND_UNAVAILABLE])
def test_what_passes_by_itself_says_when_to_come_back(case: Case) -> None:
    headers = dict(answer(Refused(case, "No.", retry_after_s=2)).headers)
    assert headers["Retry-After"] == "2"
    assert "x-should-retry" not in headers


def test_a_refusal_for_quota_carries_the_figures_in_body_and_headers() -> None:
    upgrade = Upgrade("lite", "https://u.example")
    quota = QuotaRefusal("month", VIEW, needed_tokens=44, upgrade=upgrade, topup=None)
    response = answer(Refused(Case.MONTH_USED_UP, "Used up.", retry_after_s=91, quota=quota))
    assert response.status == 429
    assert document(response) == {
        "error": {
            "message": "Used up.",
            "type": "insufficient_quota",
            "param": None,
            "code": "insufficient_quota",
            "quota": {
                "limit": "month",
                "tier": "free",
                "limit_tokens": 1000,
                "used_tokens": 960,
                "held_tokens": 30,
                "pack_tokens": 0,
                "needed_tokens": 44,
                "reset_at": "2026-12-01T00:00:00Z",
                "upgrade": {"tier": "lite", "url": "https://u.example"},
                "topup": None,
            },
        }
    }
    assert dict(response.headers) == {
        "Content-Type": "application/json",
        "x-request-id": RID,
        "Server": "quota-gateway",
        "x-quota-source": "gateway",
        "x-quota-decision": "refused",
        "x-quota-limit-tokens": "1000",
        "x-quota-remaining-tokens": "40",
        "x-quota-held-tokens": "30",
        "x-quota-reset": "2026-12-01T00:00:00Z",
        "x-quota-warning": "95",
        "Retry-After": "91",
        "x-should-retry": "false",
    }


def test_money_is_text_so_that_no_reader_rounds_it() -> None:
    topup = TopUp(320_000, Decimal("2.00"), None)
    quota = QuotaRefusal("month", VIEW, 44, upgrade=None, topup=topup)
    body = document(answer(Refused(Case.MONTH_USED_UP, "Used up.", quota=quota)))
    assert body["error"]["quota"]["topup"] == {
        "tokens": 320_000,
        "price_gbp": "2.00",
        "url": None,
    }
    assert body["error"]["quota"]["upgrade"] is None


def test_words_of_any_script_arrive_as_they_are() -> None:
    body = document(answer(Refused(Case.INVALID_VALUE, 'A "quote", a £ and a \0 — всё.')))
    assert body["error"]["message"] == 'A "quote", a £ and a \0 — всё.'
