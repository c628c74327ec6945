"""Where an embedded store lives, and who may start it.

Sockets lie in a directory that follows from the state directory alone, so a command beside a
running gateway finds them without asking. A claim makes sure that one launcher at a time starts a
store and that it never starts beside a dying predecessor; both locks are the kernel's, so no crash
leaves one behind. It knows nothing of engines.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from gateway.adapters.embedded.errors import EmbeddedError
from gateway.adapters.embedded.waiting import comes_true

POSTGRES_PORT = 5432  # only a part of the socket's name: nothing listens on TCP
POSTGRES_SOCKET = f".s.PGSQL.{POSTGRES_PORT}"
REDIS_SOCKET = "redis.sock"

_LAUNCHER_LOCK = "launcher.lock"
_SERVER_LOCK = "server.lock"

# A unix socket's path is limited to 108 bytes on Linux and 104 on macOS, closing zero included.
_SOCKET_PATH_BYTES_MAX = 103
# A predecessor whose launcher was killed is ending: Redis flushes its file, Postgres writes a
# checkpoint. Both take well under a second; past this it hangs and a person must look.
_PREDECESSOR_S = 30.0


def socket_dir(state_dir: Path) -> Path:
    """The directory of the sockets: `state_dir/run`, or a short one if that path is too long."""
    resolved = state_dir.resolve()
    if _fits(resolved / "run"):
        return resolved / "run"
    digest = hashlib.blake2s(os.fsencode(resolved), digest_size=8).hexdigest()
    name = f"quota-gateway-{os.getuid()}-{digest}"
    short = Path(tempfile.gettempdir()) / name
    return short if _fits(short) else Path("/tmp") / name


def redis_url(state_dir: Path) -> str:
    """The URL that the embedded Redis of this state directory has while it runs."""
    return f"unix://{quote(str(socket_dir(state_dir) / REDIS_SOCKET))}?db=0"


def postgres_url(state_dir: Path) -> str:
    """The DSN that the embedded Postgres of this state directory has while it runs."""
    host = quote(str(socket_dir(state_dir)))
    return f"postgresql://quota@/postgres?host={host}&port={POSTGRES_PORT}"


def own_home(state_dir: Path, store: str) -> Path:
    """The directory of one store's data, made if need be; errors as `own_directory`."""
    return own_directory(state_dir.resolve() / store)


def own_directory(path: Path) -> Path:
    """Make `path`, ours alone, or raise EmbeddedError if it is, or could be, somebody else's."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise EmbeddedError(
            f"cannot make the directory {path}: {error.strerror}. Set state_dir "
            "(QUOTA_STATE_DIR) to a place that this user may write."
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise EmbeddedError(
            f"{path} must be a directory that user {os.geteuid()} owns and nobody else may write; "
            f"it belongs to user {found.st_uid}, mode {stat.S_IMODE(found.st_mode):o}. "
            "Remove it, or run as its owner."
        )
    return path


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to start one store: the launcher's lock and the lock that its server inherits."""

    launcher: BinaryIO
    server: BinaryIO

    def release(self) -> None:
        """Give the store up. Its server's lock stays with processes of it that still live."""
        self.server.close()
        self.launcher.close()


async def claim(home: Path) -> Claim:
    """Claim the store in `home`; wait for a dying server there, refuse beside a living launcher.

    Raises EmbeddedError naming the other launcher's pid.
    """
    launcher = _open(home / _LAUNCHER_LOCK)
    if not _lock(launcher):
        holder = launcher.read().decode().strip() or "unknown"
        launcher.close()
        raise EmbeddedError(
            f"{home} is in use by the process {holder}, which started its server. "
            "Stop that process, or give this one another state_dir (QUOTA_STATE_DIR)."
        )
    launcher.truncate()
    launcher.write(str(os.getpid()).encode())
    server = _open(home / _SERVER_LOCK)
    try:
        await _await_predecessor(server, home)
    except BaseException:
        server.close()
        launcher.close()
        raise
    return Claim(launcher, server)


async def _await_predecessor(server: BinaryIO, home: Path) -> None:
    if not await comes_true(partial(_lock, server), _PREDECESSOR_S):
        raise EmbeddedError(
            f"an earlier server still runs on {home} although its launcher is gone, and has not "
            f"ended in {_PREDECESSOR_S:.0f} s. `fuser {home / _SERVER_LOCK}` names it: end it."
        )


def _fits(directory: Path) -> bool:
    return len(os.fsencode(directory / POSTGRES_SOCKET)) <= _SOCKET_PATH_BYTES_MAX


def _open(path: Path) -> BinaryIO:
    try:
        return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b", 0)
    except OSError as error:
        raise EmbeddedError(
            f"cannot open {path}: {error.strerror}. Run as the user who made it, or set state_dir "
            "(QUOTA_STATE_DIR) to another place."
        ) from error


def _lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
