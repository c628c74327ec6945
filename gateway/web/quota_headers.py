"""The `x-quota-*` headers, so that an application sees its quota with every answer.

Figures are tokens, instants RFC 3339 in UTC. Their meaning is documented for clients, so a name
never changes its meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from gateway.core.idempotency import Remembered
from gateway.core.refusal import QuotaView
from gateway.ports.answer import AnswerHead
from gateway.ports.upstream import UpstreamHead
from gateway.web.response import Header
from gateway.web.words import instant

# In place of aiohttp's own, which tells its version and Python's.
SERVER = ("Server", "quota-gateway")


def reset_at(quota: QuotaView) -> str:
    """When the period ends, RFC 3339 in UTC."""
    return _instant(quota.reset_at_ms)


# A period has one end, and few different ones are running.
_instant = lru_cache(maxsize=1024)(instant)


def quota_headers(
    quota: QuotaView, decision: str, thresholds_percent: Sequence[int]
) -> list[Header]:
    """The headers that every answer about a known payer has."""
    headers = [
        ("x-quota-decision", decision),
        ("x-quota-limit-tokens", str(quota.limit_tokens)),
        ("x-quota-remaining-tokens", str(quota.remaining_tokens)),
        ("x-quota-held-tokens", str(quota.held_tokens)),
        ("x-quota-reset", reset_at(quota)),
    ]
    passed = _passed(quota, thresholds_percent)
    if passed:
        headers.append(("x-quota-warning", str(passed)))
    return headers


def _passed(quota: QuotaView, thresholds_percent: Sequence[int]) -> int:
    """The highest threshold that is passed, 0 for none. They rise."""
    used, limit = quota.used_tokens * 100, quota.limit_tokens
    if not limit or not thresholds_percent or used < thresholds_percent[0] * limit:
        return 0
    return max(percent for percent in thresholds_percent if used >= percent * limit)


def answer_headers(head: AnswerHead, thresholds_percent: Sequence[int]) -> list[Header]:
    """All headers of an admitted call's answer but the framing."""
    headers = [("Content-Type", head.content_type), SERVER, ("x-request-id", head.rid)]
    headers += quota_headers(head.quota, head.decision, thresholds_percent)
    if head.charged_tokens is not None:
        headers.append(("x-quota-charged-tokens", str(head.charged_tokens)))
    if head.output_cap_tokens is not None:
        headers.append(("x-quota-output-cap-tokens", str(head.output_cap_tokens)))
    return headers + _of_upstream(head)


def free_headers(head: UpstreamHead, rid: str) -> list[Header]:
    """All headers of a free call's answer but the framing: no quota was looked at."""
    return [
        ("Content-Type", head.content_type),
        SERVER,
        ("x-request-id", rid),
        ("x-quota-decision", "admitted"),
        *_of_upstream(head),
    ]


def _of_upstream(head: AnswerHead | UpstreamHead) -> list[Header]:
    headers = list(head.relayed)
    if head.status >= 400:
        headers.append(("x-quota-source", "upstream"))
    if head.retry_after is not None:
        headers.append(("Retry-After", head.retry_after))
    return headers


def replay_headers(first: Remembered) -> list[Header]:
    """The headers of an answer that was given before. Its charge was the first call's, so none is
    told here: whoever adds up the charges counts it once."""
    return [
        ("Content-Type", first.content_type),
        SERVER,
        ("x-request-id", first.rid),
        ("x-quota-decision", "admitted"),
        ("x-quota-charged-tokens", "0"),
        ("idempotent-replayed", "true"),
    ]
