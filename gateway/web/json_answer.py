"""An answer in JSON that is no refusal: status, the headers that each has, and the body.

Refusals have a place of their own (error_body), and so have a model's answers, which are relayed.
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
    headers = [("Content-Type", "application/json"), SERVER, ("x-request-id", rid), *more]
    return Whole(200, headers, _encode(said))
