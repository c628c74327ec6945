"""An account as it stands in Redis, field by field: the one place where tests know its form.

Its figures are one text under `a`, in the order of lua/README.md; what is seldom read lies beside
it. A test names a figure like any other field. What an account means is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping

FIGURES = ("e", "r", "ps", "pe", "s", "f", "adj", "h", "n", "gh", "g", "q", "al", "k", "w", "y")
NO_TOKEN = b"-"


def fields_of(stored: Mapping[bytes, bytes]) -> dict[str, bytes]:
    """The fields by name, figures among them; `y` only while the account is being hydrated."""
    found = {name.decode(): value for name, value in stored.items()}
    if "a" in found:
        found |= dict(zip(FIGURES, found.pop("a").split(b" "), strict=True))
        if found["y"] == NO_TOKEN:
            del found["y"]
    return found


def with_changes(
    stored: Mapping[bytes, bytes], changes: Mapping[str, str | bytes | int | float]
) -> dict[str, str]:
    """What to store instead, so that these fields are changed and the others stay."""
    fields = {name: value.decode() for name, value in fields_of(stored).items()}
    fields |= {name: str(value) for name, value in changes.items()}
    missing = {"y": NO_TOKEN.decode()}
    figures = [fields.pop(name, missing.get(name, "0")) for name in FIGURES]
    return {**fields, "a": " ".join(figures)}
