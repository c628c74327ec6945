"""`docs/configuration.md` names every key once, with the default it really has.

Both sides are read, the tables of the document and the shape of the file, and must be equal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec

from gateway.config.shape import File, Section

DOCUMENT = Path(__file__).parents[3] / "docs" / "configuration.md"
ROW = re.compile(r"^\| `([^`]+)` \| .+? \| (required|`[^`]+`) \| .+ \|$", re.MULTILINE)
# Free keys of a mapping, as the document writes them.
FREE_KEYS = {"per_million": "<model>"}


def keys_of(section: type[Section], path: str = "") -> Iterator[tuple[str, str]]:
    """Every key that holds a value, and its default as JSON, or `required`."""
    for field in msgspec.structs.fields(section):
        inner_path = f"{path}{field.encode_name}"
        inner, suffix = inner_section(field.type, field.encode_name)
        if inner is not None:
            yield from keys_of(inner, f"{inner_path}{suffix}.")
        else:
            yield inner_path, default_of(field)


def inner_section(kind: Any, name: str) -> tuple[type[Section] | None, str]:
    """The section inside a type, and how the document writes the way to it."""
    if isinstance(kind, type) and issubclass(kind, Section):
        return kind, ""
    for arm in get_args(kind):
        if isinstance(arm, type) and issubclass(arm, Section):
            suffix = {dict: f".{FREE_KEYS.get(name, '<name>')}", tuple: "[]"}
            return arm, suffix.get(get_origin(kind), "")
    return None, ""


def default_of(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    value = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory().reveal()
    return f"`{json.dumps(value)}`"


def test_every_key_is_documented_with_its_default_and_no_other_is() -> None:
    documented = ROW.findall(DOCUMENT.read_text(encoding="utf-8"))
    assert sorted(documented) == sorted(keys_of(File))


def test_every_row_of_the_document_was_read() -> None:
    rows = [
        line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| `")
    ]
    assert len(rows) == len(list(keys_of(File)))
