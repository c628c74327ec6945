"""Small faults planted in the scripts: what a slip of the hand would do.

Every place where a rule fits is a candidate; which of them are tried is drawn by a seed. A mutant
that no test notices is either a gap in the tests or a change that changes nothing.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# What is found in a line of code, what stands there instead, and what that is called.
_RULES: tuple[tuple[str, str, str], ...] = (
    (r"(?<=[\w)\]]) < (?=[\w(])", " >= ", "a comparison flipped"),
    (r"(?<=[\w)\]]) > (?=[\w(-])", " <= ", "a comparison flipped"),
    (r"(?<=[\w)\]]) >= (?=[\w(])", " < ", "a comparison flipped"),
    (r"(?<=[\w)\]]) <= (?=[\w(])", " > ", "a comparison flipped"),
    (r"(?<=[\w)\]]) == (?=[\w(])", " ~= ", "a comparison flipped"),
    (r"(?<=[\w)\]]) ~= (?=[\w(])", " == ", "a comparison flipped"),
    (r"(?<=[a-z_)\]]) \+ (?=[a-z_(])", " - ", "a sign flipped"),
    (r"(?<=[a-z_)\]]) - (?=[a-z_(])", " + ", "a sign flipped"),
    (r"\bmath\.max\b", "math.min", "the other bound taken"),
    (r"\bmath\.min\b", "math.max", "the other bound taken"),
    (r"redis\.call\('(?=XADD|HSET|ZADD|HDEL|ZREM|DEL|XDEL)", "tostring('", "a write skipped"),
    (r", '(?:s|h|n|g|gh|q|al|f|r|adj|k|b|ps|pe|l|w|p)', [\w.]+(?=[,)])", "", "a field dropped"),
    (r"(?<=[ (])a\.(?!key|last|is_)\w+(?=[,)])(?!.* = )", "0", "a field dropped"),
    (r"(?<=\w) and (?=\w)", " or ", "and turned into or"),
)
_STRING = re.compile(r"'[^']*'")


@dataclass(frozen=True)
class Mutant:
    """One fault: `script` with line `line` (from 1) turned into `becomes`."""

    script: str
    line: int
    was: str
    becomes: str
    kind: str

    def plant(self, folder: Path) -> None:
        """Put the fault into the scripts of `folder`."""
        path = folder / self.script
        lines = path.read_text().split("\n")
        assert lines[self.line - 1] == self.was
        lines[self.line - 1] = self.becomes
        path.write_text("\n".join(lines))


def candidates(folder: Path) -> Iterator[Mutant]:
    """Every fault that the rules can make, in a fixed order."""
    for path in sorted(folder.glob("*.lua")):
        for number, line in enumerate(path.read_text().split("\n"), 1):
            code = line.partition("--")[0]
            if "error_reply" in code:  # the words of a refusal
                continue
            for pattern, instead, kind in _RULES:
                for found in re.finditer(pattern, code):
                    if kind != "a field dropped" and _in_string(code, found.start(), pattern):
                        continue
                    becomes = line[: found.start()] + instead + line[found.end() :]
                    yield Mutant(path.name, number, line, becomes, kind)


def drawn(folder: Path, seed: int, count: int) -> list[Mutant]:
    """`count` of them, every kind about as often, the same for the same seed and scripts."""
    chance = random.Random(seed)
    kinds: dict[str, list[Mutant]] = {}
    for mutant in candidates(folder):
        kinds.setdefault(mutant.kind, []).append(mutant)
    for found in kinds.values():
        chance.shuffle(found)
    order = sorted(kinds)
    chosen: list[Mutant] = []
    while len(chosen) < count and any(kinds.values()):
        for kind in order:
            if kinds[kind] and len(chosen) < count:
                chosen.append(kinds[kind].pop())
    return chosen


def _in_string(code: str, place: int, pattern: str) -> bool:
    if pattern.startswith("redis"):
        return False
    return any(text.start() < place < text.end() - 1 for text in _STRING.finditer(code))
