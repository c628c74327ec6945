"""The one place where what went wrong becomes an answer of the admin API.

Each says what is wrong, where, and what to do, in one form: `{"error": {message, code, param?}}`.
Faults of ours say nothing of themselves to the outside; the log has them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import msgspec
from aiohttp import web

from gateway.flow.once import OtherContent
from gateway.flow.operator_access import BeyondScope
from gateway.flow.topups import NotOffered
from gateway.ports.ledger import Conflict, LedgerUnavailable, Unknown
from gateway.ports.quota_store import StoreUnavailable

_log = logging.getLogger("gateway.admin")
_SHOWN_CHARS = 1000


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """`code` is for programs, `message` for people; `param` names the field at fault."""

    message: str
    code: str
    param: str | None = None


class Error(msgspec.Struct, frozen=True):
    """Every answer that is not 2xx."""

    error: Told


class Problem(Exception):
    """A request is not carried out. The text of `told` is for who sent it."""

    def __init__(self, status: int, code: str, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.told = Told(message, code, param)
        self.headers: Mapping[str, str] = {}

    def with_headers(self, headers: Mapping[str, str]) -> Problem:
        """The same, answered with these headers too."""
        self.headers = headers
        return self


def invalid(message: str, param: str | None = None) -> Problem:
    """What was sent is not what was expected."""
    return Problem(400, "invalid_value", message, param=param)


def not_found(what: str) -> Problem:
    """There is no such thing."""
    return Problem(404, "not_found", what)


def problem_of(error: Exception) -> Problem:
    """What is told of an error; one that nobody expected is logged with its trace."""
    match error:
        case Problem():
            return error
        case OtherContent():
            return Problem(409, "idempotency_key_reused", _shown(error), param="Idempotency-Key")
        case BeyondScope():
            return Problem(403, "scope_missing", _shown(error), param="scopes")
        case NotOffered():
            return Problem(409, "not_offered", _shown(error))
        case Unknown():
            return not_found(_shown(error))
        case Conflict():
            return Problem(409, "conflict", _shown(error))
        case LedgerUnavailable():
            return _away("ledger_unavailable", "the ledger (Postgres)", error)
        case StoreUnavailable():
            return _away("counters_unavailable", "the counters (Redis)", error)
        case web.HTTPException():
            return _of_http(error)
    _log.error("the admin API failed", exc_info=error)
    return Problem(500, "internal_error", "the gateway has failed here; its log says how")


def answer_of(problem: Problem) -> web.Response:
    """The whole answer."""
    return web.Response(
        status=problem.status,
        body=msgspec.json.encode(Error(problem.told)),
        content_type="application/json",
        headers=problem.headers,
    )


def _away(code: str, what: str, error: Exception) -> Problem:
    message = f"{what} cannot be used now: {_shown(error)}. Try again; repeating changes nothing"
    return Problem(503, code, message).with_headers({"Retry-After": "1"})


def _of_http(error: web.HTTPException) -> Problem:
    if error.status == 404:
        return Problem(404, "route_not_found", "there is no such route: see /admin/v1/openapi.json")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        message = f"this route takes {allowed}"
        return Problem(405, "method_not_allowed", message).with_headers({"Allow": allowed})
    if error.status == 413:
        return Problem(413, "body_too_large", "the body is larger than 1 MiB: send it in parts")
    return Problem(error.status, "invalid_http", error.reason)


def _shown(error: Exception) -> str:
    """The words of an error, which may quote what was sent."""
    text = str(error)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
