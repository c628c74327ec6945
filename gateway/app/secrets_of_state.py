"""Secrets that a gateway on embedded stores makes for itself, once, under its state directory.

Each is 256 random bits in a file that only its owner can read. They are never printed or logged;
who deletes the pepper makes every key unusable.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from gateway.adapters.embedded.place import own_directory, socket_dir
from gateway.config import Settings


def pepper_of(settings: Settings) -> bytes:
    """The pepper of key digests: configured, or made once for this state directory."""
    configured = settings.identity.keys.pepper.reveal()
    return configured.encode() if configured else _own(settings.state_dir / "pepper")


def admin_token_of(settings: Settings) -> str:
    """The bearer token of the admin port, in `STATE_DIR/admin-token`."""
    return _own(settings.state_dir / "admin-token").decode()


def admin_socket(settings: Settings) -> Path:
    """Where a running gateway answers the commands of its own state directory; nobody else may
    open what is in there."""
    return own_directory(socket_dir(settings.state_dir)) / "admin.sock"


def _own(path: Path) -> bytes:
    """The secret in a file that only its owner can read; made if there is none.

    Two processes may come at once: a file that is complete is linked into place, so the first one
    wins and neither ever reads half of it.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32))
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_bytes()
