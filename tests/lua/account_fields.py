"""An account as it stands in Redis, field by field: the one place where tests know its form.

What the ledger says of it is one text under `a`, what calls use another under `u`, in the order of
lua/README.md; what is seldom read lies beside them. A test names each part like a field of its own.
What an account means is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping

PARTS = {
    "a": ("e", "r", "ps", "pe", "adj", "k", "al", "y"),
    "u": ("s", "f", "g", "q", "w", "h", "n", "gh"),
}
NO_TOKEN = b"-"


def fields_of(stored: Mapping[bytes, bytes]) -> dict[str, bytes]:
    """The fields by name, parts among them; `y` only while the account is being hydrated."""
    found = {name.decode(): value for name, value in stored.items()}
    for text, names in PARTS.items():
        if text in found:
            found |= dict(zip(names, found.pop(text).split(b" "), strict=True))
    if found.get("y") == NO_TOKEN:
        del found["y"]
    return found


def with_changes(
    stored: Mapping[bytes, bytes], changes: Mapping[str, str | bytes | int | float]
) -> dict[str, str]:
    """What to store instead, so that these fields are changed and the others stay."""
    fields = {"y": NO_TOKEN.decode()}
    fields |= {name: value.decode() for name, value in fields_of(stored).items()}
    fields |= {name: str(value) for name, value in changes.items()}
    return {
        text: " ".join(fields.pop(name, "0") for name in names) for text, names in PARTS.items()
    } | fields
