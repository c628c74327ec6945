"""JSON held against the types of the official client: nothing missing, of another kind, or extra.

The client itself is lenient and constructs what it is sent; this is not.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from functools import cache
from typing import Any

from pydantic import BaseModel, TypeAdapter


def strictly(kind: Any, sent: Any, beyond: Collection[str] = ()) -> Any:
    """`sent` as this type; `beyond` are fields that the server sends and the type lacks."""
    found = _adapter(kind).validate_json(json.dumps(sent), strict=True)
    extra = set(_extra(found)) - set(beyond)
    assert not extra, f"fields that {kind} does not have: {sorted(extra)}"
    return found


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _extra(found: object) -> Iterator[str]:
    if isinstance(found, BaseModel):
        yield from found.model_extra or ()
        for name in type(found).model_fields:
            yield from _extra(getattr(found, name))
    elif isinstance(found, list):
        for each in found:
            yield from _extra(each)
