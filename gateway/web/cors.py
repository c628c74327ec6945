"""Calls from browsers: which pages may call, and what they may read of an answer.

The Fetch standard, section 3.3 (https://fetch.spec.whatwg.org/#http-cors-protocol). A preflight
carries no key and gets no further than here. Nothing is decided by cookies, so none are allowed;
which headers a page may send does not matter, because only listed ones are ever read.
"""

from __future__ import annotations

import re

from gateway.core.refusal import Case, Refused
from gateway.web.http_request import HttpRequest
from gateway.web.response import Whole

ANY_ORIGIN = "*"
EXPOSED = (
    "x-request-id",
    "x-quota-request-id",
    "x-quota-decision",
    "x-quota-source",
    "x-quota-limit-tokens",
    "x-quota-remaining-tokens",
    "x-quota-held-tokens",
    "x-quota-reset",
    "x-quota-charged-tokens",
    "x-quota-warning",
    "x-quota-output-cap-tokens",
    "x-should-retry",
    "idempotent-replayed",
    "Retry-After",
    "openai-processing-ms",
    "openai-version",
)
"""Every header of an answer that has a meaning for an application."""

_METHODS = "GET, POST, PUT"
_KEPT_S = 7200  # the longest that Chromium keeps a preflight's answer
_HEADER_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,2048}")


class Cors:
    """The rules for one list of origins; with an empty one, no page may call."""

    def __init__(self, origins: frozenset[str]) -> None:
        self._origins = origins
        self._any = ANY_ORIGIN in origins

    def headers(self, request: HttpRequest) -> list[tuple[str, str]]:
        """What an answer to this request carries for the browser."""
        if not self._origins:
            return []
        origin = request.headers.get("Origin")
        vary = [] if self._any else [("Vary", "Origin")]  # caches must not mix up origins
        if origin is None or not self._allows(origin):
            return vary
        return [
            ("Access-Control-Allow-Origin", ANY_ORIGIN if self._any else origin),
            ("Access-Control-Expose-Headers", ", ".join(EXPOSED)),
            *vary,
        ]

    def preflight(self, request: HttpRequest) -> Whole | None:
        """The answer to an OPTIONS request; None when it is no preflight. Refused for pages that
        are not listed."""
        if not self._origins:
            return None
        origin = request.headers.get("Origin")
        if origin is None or "Access-Control-Request-Method" not in request.headers:
            return None
        if not self._allows(origin):
            raise Refused(
                Case.ORIGIN_NOT_ALLOWED,
                f"Pages of the origin {_shown(origin)} may not call this gateway; its operator "
                "lists those that may in cors.origins.",
            )
        names = request.headers.get("Access-Control-Request-Headers", "")
        answer = [
            ("Access-Control-Allow-Methods", _METHODS),
            ("Access-Control-Max-Age", str(_KEPT_S)),
        ]
        if _HEADER_NAMES.fullmatch(names):
            answer.append(("Access-Control-Allow-Headers", names))
        return Whole(204, answer)

    def _allows(self, origin: str) -> bool:
        return self._any or origin in self._origins


def _shown(origin: str) -> str:
    return ascii(origin[:100])
