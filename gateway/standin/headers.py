"""Answer headers as OpenAI sends them, and the ids they carry.

Organisation, rate limits and cookie belong to whoever owns the key. They are here so that a test
can see that a proxy keeps them to itself.
"""

from __future__ import annotations

import secrets
from itertools import count

_CONSTANT = {
    "openai-organization": "stand-in",
    "openai-processing-ms": "1",
    "openai-version": "2020-10-01",
    "x-ratelimit-limit-requests": "10000",
    "x-ratelimit-limit-tokens": "2000000",
    "x-ratelimit-remaining-requests": "9999",
    "x-ratelimit-remaining-tokens": "1999999",
    "x-ratelimit-reset-requests": "6ms",
    "x-ratelimit-reset-tokens": "0s",
    "set-cookie": "__cf_bm=stand-in; path=/; HttpOnly",
}


class Ids:
    """Ids as long as OpenAI's: a random part for this server, then a number."""

    def __init__(self) -> None:
        self._server = secrets.token_hex(8)
        self._numbers = count(1)

    def next(self) -> str:
        """An id that no other answer has, without its prefix."""
        return f"{self._server}{next(self._numbers):013d}"


def answer_headers(request_id: str) -> dict[str, str]:
    """The headers of one answer; `request_id` is the upstream's own."""
    return {"x-request-id": request_id, **_CONSTANT}
