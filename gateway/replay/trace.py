"""Traces of requests: a CSV file with a time and two numbers of tokens a row.

The form is that of the public Azure LLM inference traces. A file is read row by row and never held
as a whole; whatever is wrong with it is a TraceError that says where and what was expected.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

COLUMNS: Final = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")

TOKENS_MAX: Final = 1_000_000
"""The largest context windows of today, and the longest text that the stand-in writes."""

_SHOWN_CHARS = 60  # of what was found instead; enough to recognise it, short enough for a line


class TraceError(ValueError):
    """A file that is no trace; the text names it, the line, and what was expected there."""


@dataclass(frozen=True, slots=True)
class Row:
    """One request. `at_s`: seconds after the first row; negative in a trace out of order."""

    at_s: float
    context_tokens: int
    generated_tokens: int


def read_trace(path: Path) -> Iterator[Row]:
    """The rows in their order, as they are asked for. TraceError when the file ends the reading."""
    if not path.is_file():
        raise TraceError(f"{path}: expected a CSV file, found {_kind(path)}")
    # A byte order mark, which spreadsheets write, is no part of the first column's name.
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file)
        try:
            yield from _rows(path, lines)
        except (csv.Error, UnicodeDecodeError) as error:
            raise TraceError(
                f"{path}: after line {lines.line_num}: expected CSV in UTF-8, found {error}"
            ) from error


def count_rows(path: Path) -> int:
    """How many rows the file has, each of them checked. TraceError also when there are none."""
    rows = sum(1 for _ in read_trace(path))
    if not rows:
        raise TraceError(f"{path}: expected at least one row below the names of the columns")
    return rows


def _rows(path: Path, lines: Iterator[list[str]]) -> Iterator[Row]:
    header = next(lines, [])
    if not set(COLUMNS) <= set(header):
        raise _unexpected(path, 1, f"the columns {','.join(COLUMNS)}", ",".join(header))
    time, context, generated = (header.index(name) for name in COLUMNS)
    began_s: float | None = None
    for number, line in enumerate(lines, 2):
        if not line:
            continue
        if len(line) != len(header):
            raise _unexpected(path, number, f"{len(header)} columns", ",".join(line))
        at_s = _seconds(path, number, line[time])
        began_s = at_s if began_s is None else began_s
        yield Row(
            at_s - began_s,
            _tokens(path, number, "ContextTokens", line[context]),
            _tokens(path, number, "GeneratedTokens", line[generated]),
        )


def _seconds(path: Path, number: int, text: str) -> float:
    try:
        instant = datetime.fromisoformat(text)
        return instant.replace(tzinfo=instant.tzinfo or UTC).timestamp()
    except ValueError:
        expected = "a TIMESTAMP such as 2023-11-16 18:15:46.6805900"
        raise _unexpected(path, number, expected, text) from None


def _tokens(path: Path, number: int, name: str, text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 9 and int(text) <= TOKENS_MAX:
        return int(text)
    raise _unexpected(path, number, f"{name} as a whole number up to {TOKENS_MAX:,}", text)


def _unexpected(path: Path, number: int, expected: str, found: str) -> TraceError:
    shown = repr(found[:_SHOWN_CHARS]) if found else "nothing"
    return TraceError(f"{path}: line {number}: expected {expected}, found {shown}")


def _kind(path: Path) -> str:
    if path.is_dir():
        return "a directory"
    return "something else" if path.exists() else "nothing there"
