"""The one place where a refusal becomes status, headers and OpenAI-shaped JSON.

Any OpenAI client can read what leaves here. The words come with the refusal; no stack, version or
upstream text is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from gateway.core.refusal import QuotaRefusal, Refused, Upgrade
from gateway.web.quota_headers import SERVER, quota_headers, reset_at
from gateway.web.response import Header, Whole

NO_CALL = "none"
"""The id of what is no call."""

_encode = msgspec.json.Encoder().encode


def refusal_response(refused: Refused, rid: str, thresholds_percent: Sequence[int]) -> Whole:
    """The whole answer to a call that was not let through."""
    return Whole(
        refused.case.value.status,
        _headers(refused, rid, thresholds_percent),
        _encode({"error": _error(refused, rid)}),
    )


def _error(refused: Refused, rid: str) -> dict[str, Any]:
    terms = refused.case.value
    error: dict[str, Any] = {
        "message": _words(refused, rid),
        "type": terms.type,
        "param": refused.param,
        "code": terms.code,
    }
    if refused.quota is not None:
        error["quota"] = _quota(refused.quota)
    if refused.upgrade is not None:
        error["upgrade"] = _upgrade(refused.upgrade)
    return error


def _words(refused: Refused, rid: str) -> str:
    """Trouble of a server names the request, as OpenAI's does: its operator will be asked."""
    if refused.case.value.status < 500 or rid == NO_CALL:
        return refused.message
    return f"{refused.message} (request ID {rid})"


def _upgrade(upgrade: Upgrade) -> dict[str, str | None]:
    return {"tier": upgrade.tier, "url": upgrade.url}


def _quota(quota: QuotaRefusal) -> dict[str, Any]:
    view, upgrade, topup = quota.view, quota.upgrade, quota.topup
    return {
        "limit": quota.limit,
        "tier": view.tier,
        "limit_tokens": view.limit_tokens,
        "used_tokens": view.used_tokens,
        "held_tokens": view.held_tokens,
        "pack_tokens": view.pack_tokens,
        "needed_tokens": quota.needed_tokens,
        "reset_at": reset_at(view),
        "upgrade": _upgrade(upgrade) if upgrade else None,
        "topup": {"tokens": topup.tokens, "price_gbp": str(topup.price_gbp), "url": topup.url}
        if topup
        else None,
    }


def _headers(refused: Refused, rid: str, thresholds_percent: Sequence[int]) -> list[Header]:
    terms = refused.case.value
    headers = [
        ("Content-Type", "application/json"),
        ("x-request-id", rid),
        SERVER,
        ("x-quota-source", terms.source),
    ]
    if refused.quota is not None:
        headers += quota_headers(refused.quota.view, "refused", thresholds_percent)
    elif terms.source == "gateway":
        headers.append(("x-quota-decision", "refused"))
    if refused.retry_after_s is not None:
        headers.append(("Retry-After", str(refused.retry_after_s)))
    if terms.try_again is not None:
        headers.append(("x-should-retry", "true" if terms.try_again else "false"))
    return headers
