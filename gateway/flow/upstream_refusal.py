"""Upstream's refusals: which may be shown to a client as they are, and which may not; and what is
said when no answer came at all.

A 401 or 403 names part of *our* key, and `insufficient_quota` means that *our* account is empty;
both are the operator's trouble and would mislead the user. A redirect is never followed: it could
carry the key elsewhere.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.core.refusal import Case, Refused
from gateway.ports.upstream import (
    UpstreamBroke,
    UpstreamCutOff,
    UpstreamSilent,
    UpstreamUnreachable,
)

_EXHAUSTED_RETRY_S = 60  # somebody has to pay a bill first


class _Error(msgspec.Struct):
    code: Any = None
    type: Any = None


class _ErrorBody(msgspec.Struct):
    error: _Error


_decoder = msgspec.json.Decoder(_ErrorBody)


def refusal_of(status: int, body: bytes) -> Refused | None:
    """The gateway's own refusal in place of upstream's; None when upstream's may pass."""
    if status in (401, 403):
        return Refused(
            Case.UPSTREAM_AUTH_FAILED,
            "The gateway's own credentials were refused by the model's service. This is for the "
            "operator to mend; nothing was charged.",
        )
    if status == 429 and _names_quota(body):
        return Refused(
            Case.UPSTREAM_QUOTA_EXHAUSTED,
            "The gateway's own account at the model's service is exhausted. This is for the "
            "operator to mend; your quota was not touched.",
            retry_after_s=_EXHAUSTED_RETRY_S,
        )
    if 300 <= status < 400:
        return Refused(
            Case.UPSTREAM_UNAVAILABLE,
            "The model's service answered with a redirect, which is never followed.",
        )
    return None


def gave_up(error: UpstreamUnreachable | UpstreamBroke | UpstreamSilent) -> Refused:
    """What the client is told when upstream did not answer."""
    if isinstance(error, UpstreamUnreachable):
        return Refused(
            Case.UPSTREAM_UNAVAILABLE,
            "The model's service cannot be reached. Nothing was charged.",
        )
    if isinstance(error, UpstreamSilent):
        return Refused(
            Case.UPSTREAM_TIMEOUT,
            "The model's service did not answer in time. Nothing was charged.",
        )
    if isinstance(error, UpstreamCutOff):
        return Refused(
            Case.SHUTTING_DOWN,
            "This gateway is shutting down and waits for no answer any more. Nothing was charged.",
            retry_after_s=1,
        )
    return Refused(
        Case.UPSTREAM_UNAVAILABLE,
        "The model's service broke off, or sent what is no answer. Nothing was charged.",
    )


def _names_quota(body: bytes) -> bool:
    try:
        error = _decoder.decode(body).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return "insufficient_quota" in (error.code, error.type)
