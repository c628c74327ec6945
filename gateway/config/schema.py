"""The JSON Schema of the file, for editors and other programs.

Made from the shape, so it knows the same keys, ranges and descriptions. Where a value must be a
number, a word of a list or a text of a pattern, a `${NAME}` that is expanded to one is allowed as
well. Rules over more than one key are beyond it: `check-config` has them.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.config.shape import File
from gateway.config.values import Secret, StoreUrl

_EXPANDED = "Expanded"
_STRICTER_THAN_TEXT = ("enum", "format", "pattern")


def schema() -> dict[str, Any]:
    """The whole schema, ready for JSON."""
    made = msgspec.json.schema(File, schema_hook=_text)
    kinds = {name: _loosened(kind) for name, kind in made["$defs"].items()}
    kinds[_EXPANDED] = {
        "title": "From the environment",
        "description": "${NAME}, or ${NAME:-default}",
        "type": "string",
        "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}",
    }
    about = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of quota-gateway",
    }
    return about | {"$ref": made["$ref"], "$defs": dict(sorted(kinds.items()))}


def _text(kind: type) -> dict[str, str]:
    if kind in (Secret, StoreUrl):
        return {"type": "string"}
    raise NotImplementedError(kind)


def _loosened(node: Any) -> Any:
    """The same, in which each single value may also come from the environment."""
    if isinstance(node, list):
        return [_loosened(each) for each in node]
    if not isinstance(node, dict):
        return node
    if not _is_single(node):
        kept = ("default", "enum", "required")
        return {name: inner if name in kept else _loosened(inner) for name, inner in node.items()}
    beside = {name: node[name] for name in ("description", "default") if name in node}
    alone = {name: value for name, value in node.items() if name not in beside}
    return beside | {"anyOf": [alone, {"$ref": f"#/$defs/{_EXPANDED}"}]}


def _is_single(node: dict[str, Any]) -> bool:
    if node.get("type") in ("integer", "number", "boolean"):
        return True
    return any(isinstance(node.get(name), (str, list)) for name in _STRICTER_THAN_TEXT)
