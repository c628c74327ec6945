"""Any bytes before a judge: a request comes out, or a refusal in due form."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from gateway.core.refusal import Refused

Request = TypeVar("Request")


def judged(judge: Callable[[bytes], Request], raw: bytes) -> Request | None:
    """The request, or None when it was refused in due form; any other error is raised."""
    try:
        return judge(raw)
    except Refused as error:
        refused = error
    assert refused.case.value.status == 400
    assert refused.message
    return None
