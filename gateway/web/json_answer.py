"""An answer of the gateway's own that is no refusal: status, the headers that each has, the body.

Nearly all are JSON. Refusals have a place of their own (error_body), and so have a model's answers,
which are relayed.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gateway.web.quota_headers import SERVER
from gateway.web.response import Header, Whole

NO_STORE: Header = ("Cache-Control", "no-store")
"""For what is about one user and true for a moment."""

_encode = msgspec.json.Encoder().encode


def json_answer(rid: str, said: object, more: Sequence[Header] = ()) -> Whole:
    """200, with `more` headers behind those that every answer has."""
    return own_answer(rid, "application/json", _encode(said), more)


def own_answer(rid: str, content_type: str, body: bytes, more: Sequence[Header] = ()) -> Whole:
    """The same of any type."""
    return Whole(200, [("Content-Type", content_type), SERVER, ("x-request-id", rid), *more], body)
