"""Values as every answer writes them: instants as RFC 3339 in UTC, money as pounds in text.

Both are exact, so that a reader may add them up. Who shows what is not known here.
"""

from __future__ import annotations

from datetime import UTC, datetime

from gateway.core.pricing import NANO


def instant(at_ms: int, precision: str = "seconds") -> str:
    """RFC 3339 in UTC; `precision` as datetime.isoformat has it."""
    text = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec=precision)
    return text.replace("+00:00", "Z")


def pounds(nano_gbp: int) -> str:
    """Nano-GBP as pounds, to the nano; a correction may be below 0."""
    whole, rest = divmod(abs(nano_gbp), NANO)
    return f"{'-' if nano_gbp < 0 else ''}{whole}.{rest:09d}"
