"""An account as it stands in Redis, field by field: the one place where tests know its form.

What the ledger says of it is one text under `a`, what calls use another under `u`, in the order of
lua/README.md; what is seldom read lies beside them. A test names each part like a field of its own.
What an account means is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping

PARTS = {
    "a": ("e", "r", "ps", "pe", "adj", "k", "al", "awaits"),
    "u": ("s", "f", "g", "q", "w", "h", "n", "gh"),
}


def fields_of(stored: Mapping[bytes, bytes]) -> dict[str, bytes]:
    """The fields by name, parts among them."""
    found = {name.decode(): value for name, value in stored.items()}
    for text, names in PARTS.items():
        if text in found:
            found |= dict(zip(names, found.pop(text).split(b" "), strict=True))
    return found


def with_changes(
    stored: Mapping[bytes, bytes], changes: Mapping[str, str | bytes | int | float]
) -> dict[str, str]:
    """What to store instead, so that these fields are changed and the others stay."""
    fields = {name: value.decode() for name, value in fields_of(stored).items()}
    fields |= {name: str(value) for name, value in changes.items()}
    return {
        text: " ".join(fields.pop(name, "0") for name in names) for text, names in PARTS.items()
    } | fields
