"""The one error of this package.

Each text says what failed, where, and what to do about it; when a server had already said
something, its last words stand at the end. It knows no engine and no process.
"""

from __future__ import annotations

from pathlib import Path

_TAIL_LINES = 12  # a start-up failure of either engine explains itself in fewer
_TAIL_BYTES = 8192  # enough for those lines, however long the log has grown


class EmbeddedError(Exception):
    """An embedded store cannot be started; the text is meant for the person at the terminal."""


def with_log(text: str, log: Path) -> EmbeddedError:
    """The error `text`, followed by the last lines of the server's log if it wrote any."""
    try:
        tail = log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").splitlines()
    except OSError:
        tail = []
    lines = [f"  | {line}" for line in tail[-_TAIL_LINES:] if line.strip()]
    return EmbeddedError("\n".join([text, f"  log: {log}", *lines]))
