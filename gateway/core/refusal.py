"""Every way in which the gateway says no, in one table.

A case carries what the edge needs as plain values: status, OpenAI's error type, a stable code, and
whether a client should try again. The codes are also the reasons in the metrics. Rendering to JSON
and headers happens once, at the web's edge; the words for a person come with the refusal.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Literal, Protocol

import msgspec

Source = Literal["gateway", "upstream"]
Limit = Literal[
    "month", "member", "tier", "budget", "requests_a_minute", "tokens_a_minute", "concurrent"
]


@dataclass(frozen=True, slots=True)
class Terms:
    """What a case looks like to a client.

    `try_again` False makes OpenAI's clients give up at once (`x-should-retry: false`); None leaves
    them their own rule, which retries 409, 429 and 5xx twice. `source` says whose trouble it is.
    """

    status: int
    type: str
    code: str
    try_again: bool | None = None
    source: Source = "gateway"


class Case(Enum):
    """The table. An upstream's own refusals that may be shown are relayed and not listed here."""

    MONTH_USED_UP = Terms(429, "insufficient_quota", "insufficient_quota", False)
    QUOTA_IN_FLIGHT = Terms(429, "tokens", "quota_in_flight")
    MEMBER_USED_UP = Terms(429, "insufficient_quota", "member_quota_exceeded", False)
    TIER_USED_UP = Terms(429, "insufficient_quota", "tier_quota_exceeded", False)
    BUDGET_SPENT = Terms(429, "insufficient_quota", "budget_exceeded", False)
    REQUESTS_A_MINUTE = Terms(429, "requests", "rate_limit_exceeded")
    TOKENS_A_MINUTE = Terms(429, "tokens", "rate_limit_exceeded")
    CONCURRENT = Terms(429, "requests", "concurrency_limit_exceeded")
    INVALID_API_KEY = Terms(401, "invalid_request_error", "invalid_api_key")
    USER_BLOCKED = Terms(403, "invalid_request_error", "user_blocked")
    KEY_NOT_ALLOWED = Terms(403, "invalid_request_error", "key_not_allowed")
    USER_UNKNOWN = Terms(404, "invalid_request_error", "user_unknown")
    MODEL_NOT_ALLOWED = Terms(403, "invalid_request_error", "model_not_allowed")
    ORIGIN_NOT_ALLOWED = Terms(403, "invalid_request_error", "origin_not_allowed")
    ROUTE_NOT_AVAILABLE = Terms(404, "invalid_request_error", "route_not_available")
    INVALID_HTTP = Terms(400, "invalid_request_error", "invalid_http")
    REQUEST_TIMEOUT = Terms(408, "invalid_request_error", "request_timeout")
    TOO_MANY_CONNECTIONS = Terms(503, "server_error", "too_many_connections")
    INVALID_JSON = Terms(400, "invalid_request_error", "invalid_json")
    INVALID_VALUE = Terms(400, "invalid_request_error", "invalid_value")
    UNSUPPORTED_PARAMETER = Terms(400, "invalid_request_error", "unsupported_parameter")
    REQUEST_EXCEEDS_QUOTA = Terms(400, "invalid_request_error", "request_exceeds_quota")
    REQUEST_TOO_LARGE = Terms(413, "invalid_request_error", "request_too_large")
    IDEMPOTENCY_KEY_REUSED = Terms(409, "invalid_request_error", "idempotency_key_reused", False)
    IDEMPOTENCY_IN_PROGRESS = Terms(409, "invalid_request_error", "idempotency_in_progress")
    IDEMPOTENCY_ANSWER_GONE = Terms(409, "invalid_request_error", "idempotency_answer_gone", False)
    TOPUP_NOT_AVAILABLE = Terms(403, "invalid_request_error", "topup_not_available", False)
    TOPUP_CONFLICT = Terms(409, "invalid_request_error", "topup_conflict", False)
    PAYMENT_NOT_PROVEN = Terms(400, "invalid_request_error", "payment_not_proven", False)
    PAYMENT_UNAVAILABLE = Terms(502, "server_error", "payment_unavailable")
    QUOTA_BACKEND_UNAVAILABLE = Terms(503, "server_error", "quota_backend_unavailable")
    SHUTTING_DOWN = Terms(503, "server_error", "shutting_down")
    INTERNAL_ERROR = Terms(500, "server_error", "internal_error")
    UPSTREAM_AUTH_FAILED = Terms(502, "server_error", "upstream_auth_failed", False, "upstream")
    UPSTREAM_QUOTA_EXHAUSTED = Terms(
        503, "server_error", "upstream_quota_exhausted", False, "upstream"
    )
    UPSTREAM_UNAVAILABLE = Terms(502, "server_error", "upstream_unavailable", None, "upstream")
    UPSTREAM_TIMEOUT = Terms(504, "server_error", "upstream_timeout", None, "upstream")


class QuotaView(msgspec.Struct, frozen=True, gc=False):
    """A payer's quota at one moment, in tokens; `reset_at_ms` is when the period ends."""

    tier: str
    limit_tokens: int
    used_tokens: int
    held_tokens: int
    pack_tokens: int
    reset_at_ms: int

    @property
    def remaining_tokens(self) -> int:
        """What is left of allowance and packs, holds not taken off."""
        return max(0, self.limit_tokens - self.used_tokens) + self.pack_tokens


@dataclass(frozen=True, slots=True)
class Upgrade:
    """The next tier, and where to get it (None: the operator gave no address)."""

    tier: str
    url: str | None


@dataclass(frozen=True, slots=True)
class TopUp:
    """A pack that this tier may buy: tokens for GBP, and where."""

    tokens: int
    price_gbp: Decimal
    url: str | None


@dataclass(frozen=True, slots=True)
class QuotaRefusal:
    """What a client needs to know about a refusal for quota, beside the words."""

    limit: Limit
    view: QuotaView
    needed_tokens: int
    upgrade: Upgrade | None
    topup: TopUp | None


class Known(Protocol):
    """Whoever calls, once that is known."""

    @property
    def user_id(self) -> str: ...

    @property
    def tier(self) -> str: ...


class Refused(Exception):
    """A call is not let through. `message` is for a person; `param` names the field at fault."""

    def __init__(
        self,
        case: Case,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: int | None = None,
        quota: QuotaRefusal | None = None,
    ) -> None:
        super().__init__(message)
        self.case = case
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.quota = quota
        self.upgrade: Upgrade | None = None  # the way on, where no quota says it
        self.tier: str | None = None
        self.user_id: str | None = None
        self.model: str | None = None  # the entry of the configuration, where there is one

    def of(self, caller: Known) -> Refused:
        """The same refusal, counted under the caller's tier and told to be theirs."""
        self.tier, self.user_id = caller.tier, caller.user_id
        return self
