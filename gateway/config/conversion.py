"""From the plain tree to the sections of `shape`, with every problem and not only the first.

msgspec checks single values; this module walks the mappings and lists around them, because msgspec
stops at its first error and does not name the key of a mapping with free keys. A value is repeated
in an error only if it cannot be a secret: never that of a Secret or of a store's URL.
"""

from __future__ import annotations

import types
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from gateway.config.document import Document, Expanded
from gateway.config.errors import key_path
from gateway.config.shape import File, Section
from gateway.config.values import Secret, StoreUrl

# Longer ones are cut: enough to recognise the value, short enough for one line.
_SHOWN_CHARACTERS_MAX = 60
_EXPECTED = {
    str: "a text, in quotes if it looks like something else",
    bool: "true or false",
    Secret: "a text, best as ${NAME} from the environment",
    StoreUrl: "a URL in quotes, or embedded",
}

_KINDS = {
    dict: "a mapping",
    list: "a list",
    str: "a text",
    Expanded: "a text",
    bool: "a truth value",
    int: "a number",
    float: "a number",
}


def convert_file(document: Document) -> File | None:
    """The whole file; None when there are problems, which then stand in the document."""
    before = len(document.problems)
    converted = _convert(document.root, File, "", document)
    if len(document.problems) > before or not isinstance(converted, File):
        return None
    return converted


def _hidden_text(kind: type, value: object) -> object:
    """msgspec's hook for the types it does not know."""
    if kind in (Secret, StoreUrl) and isinstance(value, str):
        return kind(value)
    raise TypeError("not a text")


def _convert(value: object, kind: Any, path: str, document: Document) -> object:
    """`value` as `kind`. On a problem, it is noted and the result means nothing."""
    if get_origin(kind) in (Union, types.UnionType):
        return _optional(value, kind, path, document)
    if isinstance(kind, type) and issubclass(kind, Section):
        return _section(value, kind, path, document)
    if get_origin(kind) is dict:
        return _mapping(value, get_args(kind)[1], path, document)
    if get_origin(kind) is tuple:
        return _sequence(value, get_args(kind)[0], path, document)
    return _scalar(value, kind, path, document)


def _optional(value: object, kind: Any, path: str, document: Document) -> object:
    """`T | None`; a variable that is empty or unset with an empty default counts as null."""
    if value is None or (isinstance(value, Expanded) and not value):
        return None
    (present,) = (arm for arm in get_args(kind) if arm is not types.NoneType)
    return _convert(value, present, path, document)


def _section(value: object, kind: type[Section], path: str, document: Document) -> object:
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    if not isinstance(value, dict):
        document.note(path, f"expected a mapping with keys, found {_kind_of(value)}")
        return None
    arguments = {}
    for key, inner in value.items():
        inner_path = key_path(path, key)
        if key not in fields:
            document.note(inner_path, f"unknown key; {_hint(key, list(fields))}")
        else:
            field = fields[key]
            arguments[field.name] = _convert(inner, field.type, inner_path, document)
    complete = True
    for field in fields.values():
        if field.required and field.encode_name not in value:
            complete = False
            document.note(
                key_path(path, field.encode_name), f"is missing: expected {_expected(field.type)}"
            )
    return kind(**arguments) if complete else None


def _mapping(value: object, kind: Any, path: str, document: Document) -> object:
    if not isinstance(value, dict) or not value:
        document.note(path, f"expected a mapping with one entry or more, found {_kind_of(value)}")
        return None
    return {
        key: _convert(inner, kind, key_path(path, key), document) for key, inner in value.items()
    }


def _sequence(value: object, kind: Any, path: str, document: Document) -> object:
    if not isinstance(value, list):
        document.note(path, f"expected a list, found {_kind_of(value)}")
        return None
    return tuple(_convert(inner, kind, f"{path}[{i}]", document) for i, inner in enumerate(value))


def _scalar(value: object, kind: Any, path: str, document: Document) -> object:
    """One value. Text from the environment may also stand for a number or a truth value."""
    try:
        if isinstance(value, Expanded):
            return msgspec.convert(str(value), kind, strict=False, dec_hook=_hidden_text)
        return msgspec.convert(value, kind, dec_hook=_hidden_text)
    except msgspec.ValidationError:
        document.note(path, f"expected {_expected(kind)}, found {_shown(value, kind)}")
        return None


def _expected(kind: Any) -> str:
    """What a value of this type looks like, in words."""
    if get_origin(kind) is Annotated:
        for meta in get_args(kind)[1:]:
            if isinstance(meta, msgspec.Meta) and meta.description:
                return meta.description
    if get_origin(kind) is Literal:
        options = [str(option) for option in get_args(kind)]
        return options[0] if len(options) == 1 else f"one of {', '.join(options)}"
    if get_origin(kind) is dict or (isinstance(kind, type) and issubclass(kind, Section)):
        return "a mapping"
    if get_origin(kind) is tuple:
        return "a list"
    return _EXPECTED[kind]


def _shown(value: object, kind: Any) -> str:
    """A scalar for an error: the value itself, unless it may be a secret."""
    if isinstance(value, Expanded):
        return "something else in the environment"
    if kind in (Secret, StoreUrl) or not isinstance(value, (str, int, float)):
        return _kind_of(value)
    text = f"the text {value!r}" if isinstance(value, str) else str(value).lower()
    return text if len(text) <= _SHOWN_CHARACTERS_MAX else f"{text[:_SHOWN_CHARACTERS_MAX]}..."


def _kind_of(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, (dict, list)) and not value:
        return "an empty mapping" if isinstance(value, dict) else "an empty list"
    return _KINDS.get(type(value), "a date")


def _hint(key: str, known: list[str]) -> str:
    close = get_close_matches(key, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
