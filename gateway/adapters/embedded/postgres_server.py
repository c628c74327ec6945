"""An embedded Postgres: real engine, fsync on, unix socket only.

It promises a cluster that is either whole or not there (made aside, then renamed), data that
survive a restart and a kill, healed leftovers of a crash, and connections accepted before it
returns. Whoever can open the socket is let in: the socket's directory is the owner's alone.
"""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGQUIT

from gateway.adapters.embedded.engines import POSTGRES, Choice, Engine, pick, written_by
from gateway.adapters.embedded.errors import EmbeddedError, with_log
from gateway.adapters.embedded.place import (
    POSTGRES_PORT,
    POSTGRES_SOCKET,
    Claim,
    claim,
    own_directory,
    own_home,
    postgres_url,
    socket_dir,
)
from gateway.adapters.embedded.process import (
    Launch,
    RunningServer,
    end,
    exited,
    launch,
    until_ready,
)
from gateway.adapters.embedded.run_as import RunAs, ways

_POLL_S = 0.005
_READY_LINE = 7  # of postmaster.pid: the state, as pg_ctl reads it too
_INITDB_S = 120.0  # half a second by nature; a loaded machine may take many times that
_PROBE_S = 10.0  # for one `postgres --version`
# SIGINT ends sessions and writes a checkpoint; SIGQUIT leaves that to the next start.
_ENDING = ((SIGINT, 20.0), (SIGQUIT, 5.0))


async def start_postgres(state_dir: Path, engine: Choice = "any") -> RunningServer:
    """Start the Postgres of this state directory, made first if need be, and return when it is up.

    Raises EmbeddedError: none found, data of another major, in use, or it does not come up.
    """
    home = own_home(state_dir, "postgres")
    held = await claim(home)
    try:
        return await _start(state_dir, home, held, engine)
    except BaseException:
        held.release()
        raise


async def _start(state_dir: Path, home: Path, held: Claim, choice: Choice) -> RunningServer:
    sockets = own_directory(socket_dir(state_dir))
    data = home / "data"
    made_by = f"postgres {written_by(data / 'PG_VERSION')}" if data.exists() else None
    chosen = pick(POSTGRES, choice, home, made_by)
    run_as = await _able(chosen, home, held)
    if made_by is None:
        await _make_cluster(chosen, data, held, run_as)
    _hand_over(data, run_as)
    # The claim says that no server of ours lives here, so these can only be a crash's leftovers;
    # Postgres itself would take another process with a recycled pid for the owner.
    (data / "postmaster.pid").unlink(missing_ok=True)
    (sockets / POSTGRES_SOCKET).unlink(missing_ok=True)
    (sockets / f"{POSTGRES_SOCKET}.lock").unlink(missing_ok=True)
    log = home / "log"
    argv = (str(chosen.binary), "-D", str(data), *_settings(sockets))
    child = launch(Launch(argv, home, log, SIGINT, held.server.fileno(), run_as.become))
    try:
        await until_ready(child, log, partial(_accepts, data, child.pid), _POLL_S)
    except BaseException:
        await end(child, _ENDING)
        raise
    url = postgres_url(state_dir)
    return RunningServer(url, str(chosen), child.pid, log, child, held, _ENDING)


def _settings(sockets: Path) -> tuple[str, ...]:
    quoted = str(sockets).replace('"', '""')
    settings = {
        "port": str(POSTGRES_PORT),
        "listen_addresses": "",
        "unix_socket_directories": f'"{quoted}"',
        "unix_socket_permissions": "0700",
        "shared_buffers": "32MB",  # one machine's ledger: the kernel's cache does the rest
        "max_connections": "60",
        "log_checkpoints": "off",
        "log_timezone": "UTC",
        "timezone": "UTC",
    }
    return tuple(word for name, value in settings.items() for word in ("-c", f"{name}={value}"))


async def _able(chosen: Engine, home: Path, held: Claim) -> RunAs:
    """The first identity that this machine lets a child take and that can run the binary."""
    first, *others = ways()
    if not others:
        return first
    refused: list[str] = []
    log = home / "probe.log"
    for run_as in (first, *others):
        argv = (str(chosen.binary), "--version")
        try:
            child = launch(Launch(argv, home, log, SIGKILL, held.server.fileno(), run_as.become))
        except EmbeddedError as error:
            refused.append(f"{run_as.name}: {error}")
            continue
        if await exited(child, _PROBE_S) and child.returncode == 0:
            return run_as
        await end(child)
        refused.append(f"{run_as.name}: {chosen.binary} does not run")
    raise EmbeddedError(
        "Postgres will not run as root, and nothing else is possible here ("
        + "; ".join(refused)
        + "). Run the gateway as a plain user, or set ledger.url (DATABASE_URL)."
    )


async def _make_cluster(chosen: Engine, data: Path, held: Claim, run_as: RunAs) -> None:
    unfinished = data.with_name("data.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    own_directory(unfinished)
    _hand_over(unfinished, run_as)
    log = data.with_name("initdb.log")
    argv = (
        *(str(chosen.binary.with_name("initdb")), "-D", str(unfinished), "-U", "quota"),
        *("-A", "trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"),
    )
    child = launch(Launch(argv, data.parent, log, SIGKILL, held.server.fileno(), run_as.become))
    try:
        finished = await exited(child, _INITDB_S)
    finally:
        await end(child)
    if not finished or child.returncode != 0:
        raise with_log(f"initdb failed in {unfinished} (code {child.returncode})", log)
    unfinished.rename(data)


def _hand_over(tree: Path, run_as: RunAs) -> None:
    """Give the cluster to its server's user, who changes with the rights this machine grants."""
    if tree.stat().st_uid == run_as.owner_uid:
        return
    try:
        for folder, _, files in os.walk(tree):
            for path in (folder, *(os.path.join(folder, name) for name in files)):
                os.chown(path, run_as.owner_uid, -1, follow_symlinks=False)
    except OSError as error:
        raise EmbeddedError(
            f"cannot give {tree} to user {run_as.owner_uid}, as whom Postgres would run: "
            f"{error.strerror}. Run as the user who made it, or move it away to start empty."
        ) from error


async def _accepts(data: Path, pid: int) -> bool:
    """Whether this very postmaster says that it takes connections."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    if len(lines) <= _READY_LINE or lines[0] != str(pid):
        return False
    return lines[_READY_LINE].strip() == "ready"
