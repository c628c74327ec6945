"""The `x-quota-*` headers, so that an application sees its quota with every answer.

Figures are tokens, instants RFC 3339 in UTC. Their meaning is documented for clients, so a name
never changes its meaning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from gateway.core.idempotency import Remembered
from gateway.core.refusal import QuotaView
from gateway.ports.answer import AnswerHead
from gateway.ports.upstream import UpstreamHead

# In place of aiohttp's own, which tells its version and Python's.
SERVER = ("Server", "quota-gateway")


def reset_at(quota: QuotaView) -> str:
    """When the period ends, RFC 3339 in UTC."""
    return f"{datetime.fromtimestamp(quota.reset_at_ms / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"


def quota_headers(
    quota: QuotaView, decision: str, thresholds_percent: Sequence[int]
) -> Iterator[tuple[str, str]]:
    """The headers that every answer about a known payer has."""
    yield "x-quota-decision", decision
    yield "x-quota-limit-tokens", str(quota.limit_tokens)
    yield "x-quota-remaining-tokens", str(quota.remaining_tokens)
    yield "x-quota-held-tokens", str(quota.held_tokens)
    yield "x-quota-reset", reset_at(quota)
    passed = [
        percent
        for percent in thresholds_percent
        if quota.used_tokens * 100 >= percent * quota.limit_tokens
    ]
    if passed and quota.limit_tokens:
        yield "x-quota-warning", str(max(passed))


def answer_headers(
    head: AnswerHead, thresholds_percent: Sequence[int]
) -> Iterator[tuple[str, str]]:
    """All headers of an admitted call's answer but the framing."""
    yield "Content-Type", head.content_type
    yield SERVER
    yield "x-request-id", head.rid
    yield from quota_headers(head.quota, "admitted", thresholds_percent)
    if head.charged_tokens is not None:
        yield "x-quota-charged-tokens", str(head.charged_tokens)
    if head.output_cap_tokens is not None:
        yield "x-quota-output-cap-tokens", str(head.output_cap_tokens)
    yield from _of_upstream(head)


def free_headers(head: UpstreamHead, rid: str) -> Iterator[tuple[str, str]]:
    """All headers of a free call's answer but the framing: no quota was looked at."""
    yield "Content-Type", head.content_type
    yield SERVER
    yield "x-request-id", rid
    yield "x-quota-decision", "admitted"
    yield from _of_upstream(head)


def _of_upstream(head: AnswerHead | UpstreamHead) -> Iterator[tuple[str, str]]:
    if head.status >= 400:
        yield "x-quota-source", "upstream"
    if head.retry_after is not None:
        yield "Retry-After", head.retry_after
    yield from head.relayed


def replay_headers(first: Remembered) -> Iterator[tuple[str, str]]:
    """The headers of an answer that was given before. Its charge was the first call's, so none is
    told here: whoever adds up the charges counts it once."""
    yield "Content-Type", first.content_type
    yield SERVER
    yield "x-request-id", first.rid
    yield "x-quota-decision", "admitted"
    yield "x-quota-charged-tokens", "0"
    yield "idempotent-replayed", "true"
