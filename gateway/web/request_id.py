"""The id of a request as its client sees it: the client's own if it sent one, else ours.

Ours names hold, ledger row and log line, always, and nobody can choose it: whoever could would call
twice under one id. A client's own is only repeated to it, and kept beside ours.
"""

from __future__ import annotations

import re

from gateway.core.masking import masked
from gateway.web.http_request import HttpRequest
from gateway.web.response import Header

HEADER = "x-request-id"
OURS = "x-quota-request-id"
CHARS_MAX = 128
_WELL_FORMED = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._:=+-]{{0,{CHARS_MAX - 1}}}")


def own_id(request: HttpRequest) -> str | None:
    """The client's `x-request-id`; None when there is none, or none that may stand in a log."""
    value = request.headers.get(HEADER)
    if value is None or not _WELL_FORMED.fullmatch(value) or masked(value) != value:
        return None
    return value


def client_id_of(request: HttpRequest) -> str | None:
    """The client's own id of this request: `x-client-request-id`, as OpenAI's API takes it, else
    its `x-request-id`; None when neither is usable."""
    value = request.headers.get("x-client-request-id")
    if value is None:
        return own_id(request)
    usable = 0 < len(value) <= CHARS_MAX and value.isascii() and value.isprintable()
    return value if usable else None


def answer_to(headers: list[Header], request: HttpRequest) -> list[Header]:
    """The headers of an answer under the client's own id, where it sent one: ours moves to
    `x-quota-request-id`."""
    own = own_id(request)
    if own is None:
        return headers
    ours = [(OURS, value) for name, value in headers if name == HEADER]
    rest = [header for header in headers if header[0] != HEADER]
    return [*rest, (HEADER, own), *ours]
