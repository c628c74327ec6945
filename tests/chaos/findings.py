"""What the auditor says: findings, which must not be, and stated losses, which are counted.

It knows neither how they are found nor what is done with them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tests.chaos.limits import Reached


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be. `kind` is one of few words, `subject` a request, user or part."""

    kind: str
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.subject}: {self.text}"


@dataclass(slots=True)
class Verdict:
    """`excused` counts stated losses by name, `nearest` is the user nearest to the bound."""

    findings: list[Finding] = field(default_factory=list)
    excused: Counter[str] = field(default_factory=Counter)
    nearest: Reached | None = None
