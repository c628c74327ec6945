"""One line of what the doctor says: what was looked at, how it stands, what to do.

No secret is ever in a text: stores are named by what may be shown of their URL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`advice` is what to do; None where there is nothing to do."""

    check: str
    state: State
    found: str
    advice: str | None = None


def worst(findings: Sequence[Finding]) -> State:
    """The state of the whole."""
    states: tuple[State, ...] = ("wrong", "warning")
    return next((state for state in states if state in {each.state for each in findings}), "ok")
