"""What is wrong with a configuration, said so that it can be mended.

Each problem names its place (file, line, key) and says what was found and what was expected. No
text here ever holds a secret: whoever makes a problem shows a value only if its type is harmless.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. `path` is the key, such as `plan.tiers.free.tokens`; empty: the whole file."""

    path: str
    text: str


class ConfigError(Exception):
    """The configuration cannot be used; the text lists every problem found, one a line."""

    def __init__(self, file: str, problems: list[Problem], lines: dict[str, int]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(_sentence(file, problem, lines) for problem in problems))


def key_path(parent: str, key: str) -> str:
    """The path of a key inside `parent`; quoted where a dot or a star would mislead."""
    if not _PLAIN_KEY.fullmatch(key):
        return f'{parent}["{key}"]'
    return f"{parent}.{key}" if parent else key


def unknown(name: str, section: str, known: Iterable[str]) -> str:
    """Says that a name is none of those that a section knows."""
    return f"{name!r} is not in {section}; there: {', '.join(known)}"


def _sentence(file: str, problem: Problem, lines: dict[str, int]) -> str:
    """`file:line: key: text`. A key that is missing has no line; its nearest parent has."""
    line = _nearest_line(problem.path, lines)
    place = file if line is None else f"{file}:{line}"
    return (
        f"{place}: {problem.path}: {problem.text}" if problem.path else f"{place}: {problem.text}"
    )


def _nearest_line(path: str, lines: dict[str, int]) -> int | None:
    while path:
        if path in lines:
            return lines[path]
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return None
