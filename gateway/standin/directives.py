"""Directives: what a prompt tells the stand-in to do.

A line `@stand-in key=value flag …` in the last message travels unchanged through any proxy and
SDK, so a test can demand a length, a delay or a fault of one single call. Reading is strict: a
misspelt directive, or one that an API does not obey, is an error that names it, because a fault
that never happens proves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from gateway.standin.usage import Manner, Usage

# One sentence of the stand-in's text.
WRITE_TOKENS_DEFAULT = 12
# Ten times what any model writes; keeps a slip of the finger from filling the memory.
WRITE_TOKENS_MAX = 1_000_000
CALLS_MAX = 128  # as many as OpenAI takes tools

# The line's beginning is checked apart: an anchored pattern would be tried at every line, and
# prompts are long.
_ORDER = re.compile(r"@stand-in(?!\S)(.*)")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_USAGE = re.compile(r"[0-9]{1,12}/[0-9]{1,12}(?:/[0-9]{1,12}/[0-9]{1,12})?")
_PREDICTED = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")
_CATEGORY = re.compile(r"[a-z/-]{1,64}")


class DirectiveError(ValueError):
    """A directive that cannot be obeyed; the text names it."""


@dataclass(frozen=True, slots=True)
class Directives:
    """What one call shall do; the defaults are what a well-behaved upstream does.

    Counts "after" are content chunks. `usage` is a figure to report, or: `honest`, `none` (left
    out), `text` (true figures, but as strings). `predicted` are accepted and rejected tokens,
    `flag` is a category of moderation.
    """

    write: int = WRITE_TOKENS_DEFAULT
    think: int = 0
    calls: int = 0
    refuse: bool = False
    cached: int = 0
    cache_write: int = 0
    predicted: tuple[int, int] = (0, 0)
    flag: str | None = None
    usage: Usage | Manner = "honest"
    delay_ms: int = 0
    chunk_ms: int = 0
    cut_after: int | None = None
    error_after: int | None = None
    fail_after: int | None = None
    postscript: bool = False
    status: int | None = None
    code: str | None = None
    retry_after: int | None = None
    hold: str | None = None
    hold_after: int | None = None
    never_ends: bool = False
    ignore_cap: bool = False


def read_directives(text: str, obeyed: Collection[str] | None = None) -> Directives:
    """The directives in the text of a message; the defaults when it holds no such line.

    `obeyed` are those that the API asked can follow; None: all.
    """
    lines = [found[1] for found in _ORDER.finditer(text) if _opens_line(text, found.start())]
    if len(lines) > 1:
        raise DirectiveError(f"{len(lines)} '@stand-in' lines in one message: write one")
    values: dict[str, Any] = {}
    for word in lines[0].split() if lines else ():
        key, equals, value = word.partition("=")
        if key in values:
            raise DirectiveError(f"stand-in directive '{key}' is given twice")
        values[key] = _value(key, value if equals else None)
        if obeyed is not None and key not in obeyed:
            raise DirectiveError(f"stand-in directive '{key}' does nothing in this API")
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


def _predicted(value: str) -> tuple[int, int] | None:
    found = _PREDICTED.fullmatch(value)
    return None if found is None else (int(found[1]), int(found[2]))


def _category(value: str) -> str | None:
    return value if _CATEGORY.fullmatch(value) else None


_TOKENS = (_number(0, WRITE_TOKENS_MAX), f"tokens, at most {WRITE_TOKENS_MAX}")
_MILLISECONDS = (_number(0, 600_000), "milliseconds, at most 600000")
_CHUNKS = (_number(0, WRITE_TOKENS_MAX), "a number of content chunks")
_FLAGS = frozenset({"never_ends", "ignore_cap", "refuse", "postscript"})
_READERS: dict[str, tuple[Callable[[str], object | None], str]] = {
    "write": _TOKENS,
    "think": _TOKENS,
    "cached": _TOKENS,
    "cache_write": _TOKENS,
    "calls": (_number(1, CALLS_MAX), f"1 to {CALLS_MAX} calls"),
    "predicted": (_predicted, "ACCEPTED/REJECTED tokens"),
    "flag": (_category, "a category of moderation"),
    "usage": (_usage, "PROMPT/COMPLETION, PROMPT/COMPLETION/CACHED/REASONING, none, zero or text"),
    "delay_ms": _MILLISECONDS,
    "chunk_ms": _MILLISECONDS,
    "cut_after": _CHUNKS,
    "error_after": _CHUNKS,
    "fail_after": _CHUNKS,
    "hold_after": _CHUNKS,
    "status": (_number(400, 599), "an HTTP status from 400 to 599"),
    "code": (_name, "an error code"),
    "retry_after": (_number(0, 999_999_999), "seconds"),
    "hold": (_name, "a name of at most 64 letters, digits and '_.-'"),
}

# What each kind of API can follow.
OF_ALL = frozenset(
    {"usage", "delay_ms", "cut_after", "status", "code", "retry_after", "hold", "never_ends"}
)
OF_TEXT = OF_ALL | {"write", "ignore_cap", "chunk_ms", "error_after", "hold_after"}
OF_THOUGHT = OF_TEXT | {"think", "calls", "refuse", "cached", "cache_write"}
