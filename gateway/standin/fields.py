"""The fields of a request body, read as OpenAI reads them.

Each reader answers the value, or what a missing field stands for, or raises Refused with the 400
that OpenAI gives for that mistake. It knows no API: names and limits come from whoever asks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from gateway.standin.directives import DirectiveError, Directives, read_directives
from gateway.standin.errors import Refused, invalid

Body = Mapping[str, Any]

NUMBERS_MAX = 2**31 - 1
_METADATA_PAIRS_MAX = 16  # OpenAI's, as the next two
_METADATA_KEY_CHARS_MAX = 64
_METADATA_VALUE_CHARS_MAX = 512
_NEEDS_STREAM = ("error_after", "fail_after", "hold_after")


def known_only(body: Body, known: Collection[str], within: str = "") -> None:
    """Refuse the first parameter that OpenAI does not know."""
    unknown = next((name for name in body if name not in known), None)
    if unknown is not None:
        raise unknown_parameter(within + unknown)


def unknown_parameter(name: str) -> Refused:
    """The 400 for a parameter that nobody knows."""
    return invalid(f"Unknown parameter: '{name}'.", name, "unknown_parameter")


def model_of(body: Body) -> str:
    """The model's name, which has to be there."""
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise invalid("you must provide a model parameter")
    return model


def flag(body: Body, name: str, within: str = "") -> bool:
    """A boolean; false when missing or null."""
    value = body.get(name)
    if not isinstance(value, bool | None):
        raise wrong_type(within + name, "a boolean", value)
    return bool(value)


def number(body: Body, name: str, most: int = NUMBERS_MAX, least: int = 1) -> int | None:
    """An integer within its limits; None when missing or null."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise wrong_type(name, "an integer", value)
    if value < least:
        raise _out_of_range(name, "below_min", f">= {least}, but got {value}")
    if value > most:
        raise _out_of_range(name, "above_max", f"<= {most}, but got {value}")
    return value


def words(body: Body, name: str, within: str = "") -> str | None:
    """A string; None when missing or null."""
    value = body.get(name)
    if not isinstance(value, str | None):
        raise wrong_type(within + name, "a string", value)
    return value


def mapping(body: Body, name: str, within: str = "") -> dict[str, Any]:
    """An object; empty when missing or null."""
    value = body.get(name)
    if not isinstance(value, dict | None):
        raise wrong_type(within + name, "an object", value)
    return value or {}


def listing(body: Body, name: str) -> list[Any]:
    """An array; empty when missing or null."""
    value = body.get(name)
    if not isinstance(value, list | None):
        raise wrong_type(name, "an array of objects", value)
    return value or []


def one_of(value: object, supported: Collection[str], name: str) -> str:
    """A string that is one of these."""
    if isinstance(value, str) and value in supported:
        return value
    listed = ", ".join(f"'{each}'" for each in supported)
    problem = f"Invalid value: '{value}'. Supported values are: {listed}."
    raise invalid(problem, name, "invalid_value")


def metadata(body: Body) -> dict[str, Any]:
    """Up to 16 pairs of short strings; empty when missing."""
    pairs = mapping(body, "metadata")
    if len(pairs) > _METADATA_PAIRS_MAX:
        problem = (
            "Invalid 'metadata': too many properties. Expected an object with at most "
            f"{_METADATA_PAIRS_MAX} properties, but got {len(pairs)} properties instead."
        )
        raise invalid(problem, "metadata", "object_above_max_properties")
    for key, value in pairs.items():
        if not isinstance(value, str):
            raise wrong_type(f"metadata.{key}", "a string", value)
        if len(key) > _METADATA_KEY_CHARS_MAX or len(value) > _METADATA_VALUE_CHARS_MAX:
            problem = f"Invalid 'metadata.{key}': string too long."
            raise invalid(problem, f"metadata.{key}", "string_above_max_length")
    return pairs


def orders(text: str, obeyed: Collection[str], stream: bool, param: str) -> Directives:
    """The directives in the text that may hold them; `param` is where that text came from."""
    try:
        directives = read_directives(text, obeyed)
    except DirectiveError as error:
        raise invalid(str(error), param, "stand_in_directive") from error
    needs = [name for name in _NEEDS_STREAM if getattr(directives, name) is not None]
    if needs and not stream:
        problem = f"stand-in directive '{needs[0]}' needs 'stream': true"
        raise invalid(problem, param, "stand_in_directive")
    return directives


def missing(name: str) -> Refused:
    """The 400 for a field that has to be there."""
    return invalid(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")


def empty(name: str) -> Refused:
    """The 400 for an array without anything in it."""
    return invalid(
        f"Invalid '{name}': empty array. Expected an array with minimum length 1, but got "
        "an empty array instead.",
        name,
        "empty_array",
    )


def wrong_type(name: str, expected: str, value: object) -> Refused:
    """The 400 for a value of another kind."""
    kinds = {bool: "a boolean", int: "an integer", float: "a decimal number", str: "a string"}
    found = kinds.get(type(value), "an array" if isinstance(value, list) else "an object")
    return invalid(
        f"Invalid type for '{name}': expected {expected}, but got {found} instead.",
        name,
        "invalid_type",
    )


def _out_of_range(name: str, side: str, found: str) -> Refused:
    return invalid(
        f"Invalid '{name}': integer {side.replace('_', ' ')}imum value. "
        f"Expected a value {found} instead.",
        name,
        f"integer_{side}_value",
    )
