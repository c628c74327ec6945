"""Reading a request's JSON once, within bounds, so that what is judged is what is sent on.

Refused: text that is not JSON, depth over 64, numbers that other readers would take differently
(integers beyond 64 bits, floats beyond double). The body is encoded anew from the value returned,
so a key given twice cannot mean one thing here and another upstream.
"""

from __future__ import annotations

from types import GenericAlias
from typing import Annotated, Any

import msgspec

from gateway.core.refusal import Case, Refused

DEPTH_MAX = 64  # OpenAI's schemas nest a few levels; 64 leaves room for any tool's own schema
_INTEGER_MAX = 2**63 - 1
_USUAL_DEPTH_MAX = 8  # a decoder's size doubles with each level


def _bounded(levels: int) -> Any:
    """The type of JSON objects of so many levels, whose integers are within bounds."""
    integer = Annotated[int, msgspec.Meta(ge=-_INTEGER_MAX, le=_INTEGER_MAX)]
    plain: Any = str | bool | integer | float | None
    value: Any = plain
    for _ in range(levels - 1):
        value = plain | GenericAlias(list, (value,)) | GenericAlias(dict, (str, value))
    return GenericAlias(dict, (str, value))


_usual_decoder: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(
    _bounded(_USUAL_DEPTH_MAX)
)
_decoder = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()


def read_object(raw: bytes) -> dict[str, Any]:
    """The body as a dict of plain values; Refused with `invalid_json` and the reason otherwise."""
    try:
        # Bounds that are checked while reading cost nothing; nearly all bodies are within these.
        return _usual_decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _read_any(raw)


def _read_any(raw: bytes) -> dict[str, Any]:
    """Deep bodies, and the reason to refuse one."""
    try:
        value = _decoder.decode(raw)
    except RecursionError:
        raise _invalid(f"it nests deeper than {DEPTH_MAX} levels") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _invalid(str(error)) from None
    if not isinstance(value, dict):
        raise _invalid("it is not an object")
    _check_bounds(value)
    return value


def encode(value: dict[str, Any]) -> bytes:
    """The value as JSON, keys in their order."""
    return _encoder.encode(value)


def _check_bounds(value: dict[str, Any]) -> None:
    """Level by level. One plain loop: it has to be quick for a few fields, for many small objects
    and for an embedding's hundreds of thousands of token ids."""
    level: list[Any] = [value]
    for _ in range(DEPTH_MAX):
        deeper: list[Any] = []
        for container in level:
            for item in container.values() if type(container) is dict else container:
                kind = type(item)
                if kind is str:
                    continue
                if kind is int:
                    if not -_INTEGER_MAX <= item <= _INTEGER_MAX:
                        raise _invalid("it holds an integer beyond 64 bits")
                elif kind is dict or kind is list:
                    deeper.append(item)
        if not deeper:
            return
        level = deeper
    raise _invalid(f"it nests deeper than {DEPTH_MAX} levels")


def _invalid(reason: str) -> Refused:
    return Refused(Case.INVALID_JSON, f"The request body is not valid JSON for this API: {reason}.")
