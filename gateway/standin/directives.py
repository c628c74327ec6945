"""Directives: what a prompt tells the stand-in to do.

A line `@stand-in key=value flag …` in the last message travels unchanged through any proxy and
SDK, so a test can demand a length, a delay or a fault of one single call. Reading is strict: a
misspelt directive is an error that names it, because a fault that never happens proves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from gateway.standin.counting import Usage

# One sentence of the stand-in's text.
WRITE_TOKENS_DEFAULT = 12
# Ten times what any model writes; keeps a slip of the finger from filling the memory.
WRITE_TOKENS_MAX = 1_000_000

# The line's beginning is checked apart: an anchored pattern would be tried at every line, and
# prompts are long.
_ORDER = re.compile(r"@stand-in(?!\S)(.*)")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_USAGE = re.compile(r"[0-9]{1,12}/[0-9]{1,12}(?:/[0-9]{1,12}/[0-9]{1,12})?")


class DirectiveError(ValueError):
    """A directive that cannot be obeyed; the text names it."""


@dataclass(frozen=True, slots=True)
class Directives:
    """What one call shall do; the defaults are what a well-behaved upstream does.

    Counts "after" are content chunks. `usage` is a figure to report, or: `honest`, `none` (left
    out), `text` (true figures, but as strings).
    """

    write: int = WRITE_TOKENS_DEFAULT
    usage: Usage | Literal["honest", "none", "text"] = "honest"
    delay_ms: int = 0
    chunk_ms: int = 0
    cut_after: int | None = None
    error_after: int | None = None
    status: int | None = None
    code: str | None = None
    retry_after: int | None = None
    hold: str | None = None
    hold_after: int | None = None
    never_ends: bool = False
    ignore_cap: bool = False


def read_directives(text: str) -> Directives:
    """The directives in the text of a message; the defaults when it holds no such line."""
    lines = [found[1] for found in _ORDER.finditer(text) if _opens_line(text, found.start())]
    if len(lines) > 1:
        raise DirectiveError(f"{len(lines)} '@stand-in' lines in one message: write one")
    values: dict[str, Any] = {}
    for word in lines[0].split() if lines else ():
        key, equals, value = word.partition("=")
        if key in values:
            raise DirectiveError(f"stand-in directive '{key}' is given twice")
        values[key] = _value(key, value if equals else None)
    directives = Directives(**values)
    _check_pairs(directives)
    return directives


def _opens_line(text: str, at: int) -> bool:
    line_start = text.rfind("\n", 0, at) + 1
    return not text[line_start:at].strip()


def _value(key: str, value: str | None) -> object:
    if key in _FLAGS:
        if value is not None:
            raise DirectiveError(f"stand-in directive '{key}' takes no value")
        return True
    if key not in _READERS:
        known = ", ".join(sorted([*_READERS, *_FLAGS]))
        raise DirectiveError(f"unknown stand-in directive '{key}'; known are {known}")
    read, expected = _READERS[key]
    found = None if value is None else read(value)
    if found is None:
        raise DirectiveError(f"stand-in directive '{key}={value or ''}': expected {expected}")
    return found


def _check_pairs(given: Directives) -> None:
    if given.status is None and (given.code is not None or given.retry_after is not None):
        raise DirectiveError("stand-in directives 'code' and 'retry_after' need 'status'")
    if given.hold is None and given.hold_after is not None:
        raise DirectiveError("stand-in directive 'hold_after' needs 'hold'")


def _number(least: int, most: int) -> Callable[[str], int | None]:
    def read(value: str) -> int | None:
        if not value.isascii() or not value.isdigit() or len(value) > 9:
            return None
        return int(value) if least <= int(value) <= most else None

    return read


def _name(value: str) -> str | None:
    return value if _NAME.fullmatch(value) else None


def _usage(value: str) -> Usage | str | None:
    if value in ("none", "text"):
        return value
    if value == "zero":
        return Usage(0, 0)
    return Usage(*map(int, value.split("/"))) if _USAGE.fullmatch(value) else None


_MILLISECONDS = (_number(0, 600_000), "milliseconds, at most 600000")
_CHUNKS = (_number(0, WRITE_TOKENS_MAX), "a number of content chunks")
_FLAGS = frozenset({"never_ends", "ignore_cap"})
_READERS: dict[str, tuple[Callable[[str], object | None], str]] = {
    "write": (_number(0, WRITE_TOKENS_MAX), f"tokens, at most {WRITE_TOKENS_MAX}"),
    "usage": (_usage, "PROMPT/COMPLETION, PROMPT/COMPLETION/CACHED/REASONING, none, zero or text"),
    "delay_ms": _MILLISECONDS,
    "chunk_ms": _MILLISECONDS,
    "cut_after": _CHUNKS,
    "error_after": _CHUNKS,
    "hold_after": _CHUNKS,
    "status": (_number(400, 599), "an HTTP status from 400 to 599"),
    "code": (_name, "an error code"),
    "retry_after": (_number(0, 999_999_999), "seconds"),
    "hold": (_name, "a name of at most 64 letters, digits and '_.-'"),
}
