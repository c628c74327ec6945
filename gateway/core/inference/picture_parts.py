"""Pictures inside a request: what one may be, and what all of them cost.

A picture comes by a data: URL or by an address that OpenAI fetches; files that are stored upstream
belong to all users together, so their ids are refused. The APIs write their parts differently; what
a part holds is the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gateway.core.inference.fields import invalid, unsupported
from gateway.core.models import Model
from gateway.core.prompt.pictures import count_picture

_SCHEMES = ("data:", "https://", "http://")
_SCHEME_CHARS_MAX = 8


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a prompt. `where` is its part's path in the request."""

    where: str
    url: str
    detail: str | None


def judge_picture(where: str, url: Any, detail: Any) -> Picture:
    """A picture by what its part says; Refused unless it is a data: URL or an address.

    Other schemes would be read by an upstream from its own disk (`file://`).
    """
    if not isinstance(url, str) or not url[:_SCHEME_CHARS_MAX].lower().startswith(_SCHEMES):
        raise invalid(f"{where}.image_url", "a data: or https: URL of a picture")
    if detail is not None and not isinstance(detail, str):
        raise invalid(f"{where}.detail", "one of low, high, auto and original")
    return Picture(where, url, detail)


def count_pictures(pictures: Iterable[Picture], model: Model) -> int:
    """Tokens of all pictures; Refused when the model takes none."""
    tokens = 0
    for picture in pictures:
        if model.pictures is None:
            raise unsupported(
                picture.where, f"is a picture, and the model '{model.name}' takes none here"
            )
        tokens += count_picture(picture.url, picture.detail, model.pictures)
    return tokens
