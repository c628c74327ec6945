"""Where a running `serve` can be reached, told to commands of the same state directory.

A file beside the sockets holds the words of the `ready` line, and the stand-in's address if there
is one. It is a hint: a `serve` that was killed leaves it behind, so whoever reads it asks there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from gateway.adapters.embedded import socket_dir
from gateway.config import Settings


@contextmanager
def noted_places(settings: Settings, places: Mapping[str, str]) -> Iterator[None]:
    """Let commands find these places for as long as the block lasts."""
    note = _note(settings)
    note.write_text(json.dumps(dict(places)))
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def read_places(settings: Settings) -> dict[str, str]:
    """What the last `serve` of this state directory noted; empty when it has ended well."""
    try:
        return dict(json.loads(_note(settings).read_text()))
    except (OSError, ValueError):
        return {}


def _note(settings: Settings) -> Path:
    return socket_dir(settings.state_dir) / "places.json"
