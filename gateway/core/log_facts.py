"""What may stand beside the words of a log line: the one list, the same names in every line.

Ids and figures only. A field that is not here cannot be logged beside the words, so nobody puts a
body, a header or a key there by accident.
"""

from __future__ import annotations

import msgspec


class Facts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`request` is our id, which is that of the ledger's row; `client_request` is the client's own.
    `tokens`: what an admitted call holds, or what a refused one needed. `ms`: from the head of the
    request to this line. `model` is an entry of the configuration, never what a caller wrote."""

    request: str | None = None
    client_request: str | None = None
    user: str | None = None
    tier: str | None = None
    model: str | None = None
    route: str | None = None
    decision: str | None = None
    reason: str | None = None
    status: int | None = None
    tokens: int | None = None
    ms: float | None = None


def beside(facts: Facts) -> dict[str, Facts]:
    """As `extra` of a logging call."""
    return {"facts": facts}
