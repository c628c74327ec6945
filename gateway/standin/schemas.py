"""A JSON text that satisfies a schema: what a model writes when its output is structured.

Knows what structured outputs use: objects with all their properties, arrays of one item, enums,
constants, the first of alternatives, and references to definitions. Other limits (patterns,
lengths, ranges) are not looked at; a schema it cannot follow is refused, like OpenAI refuses some.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.standin.errors import Refused, invalid

_DEPTH_MAX = 20
# Deeper than this an array stays empty, so that a tree of itself comes to an end.
_ITEMS_DEPTH_MAX = 4


def written_by(schema: Mapping[str, Any], words: str) -> str:
    """Compact JSON of this schema in which every free string is `words`; Refused if impossible."""
    return msgspec.json.encode(_value(schema, _Setting(schema, words), 0)).decode()


class _Setting(msgspec.Struct, frozen=True):
    root: Mapping[str, Any]
    words: str


def _value(schema: object, setting: _Setting, depth: int) -> object:
    if not isinstance(schema, Mapping) or depth > _DEPTH_MAX:
        raise _not_followed("it is no object, or too deep")
    if isinstance(pointer := schema.get("$ref"), str):
        return _value(_pointed_at(pointer, setting.root), setting, depth + 1)
    if "const" in schema:
        return schema["const"]
    for choices in (schema.get("enum"), schema.get("anyOf"), schema.get("oneOf")):
        if isinstance(choices, list) and choices:
            first = choices[0]
            return first if choices is schema.get("enum") else _value(first, setting, depth + 1)
    if isinstance(all_of := schema.get("allOf"), list) and len(all_of) == 1:
        return _value(all_of[0], setting, depth + 1)
    return _of_kind(schema, setting, depth)


def _of_kind(schema: Mapping[str, Any], setting: _Setting, depth: int) -> object:
    kind = schema.get("type", "object" if "properties" in schema else None)
    match kind[0] if isinstance(kind, list) and kind else kind:
        case "object":
            properties = schema.get("properties") or {}
            if not isinstance(properties, Mapping):
                raise _not_followed("'properties' is no object")
            return {name: _value(each, setting, depth + 1) for name, each in properties.items()}
        case "array":
            if depth >= _ITEMS_DEPTH_MAX or "items" not in schema:
                return []
            return [_value(schema["items"], setting, depth + 1)]
        case "string":
            return setting.words
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "null":
            return None
        case other:
            raise _not_followed(f"type '{other}' is unknown")


def _pointed_at(pointer: str, root: Mapping[str, Any]) -> object:
    found: object = root
    for step in pointer.removeprefix("#").split("/")[1:]:
        found = found.get(step) if isinstance(found, Mapping) else None
    return found


def _not_followed(why: str) -> Refused:
    problem = f"Invalid schema: the stand-in cannot follow it, since {why}."
    return invalid(problem, "schema", "invalid_json_schema")
