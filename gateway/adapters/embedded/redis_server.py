"""An embedded Redis (or Valkey): real engine, append-only file, unix socket only.

It promises noeviction, data that survive a restart and a kill (the last second may be lost to a
kill of the machine, nothing to a kill of the process), and an answer to PING before it returns.
For one machine, without TLS: production gives a URL instead.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from pathlib import Path
from signal import SIGTERM

from gateway.adapters.embedded.engines import REDIS, Choice, pick, written_by
from gateway.adapters.embedded.place import (
    REDIS_SOCKET,
    Claim,
    claim,
    own_directory,
    own_home,
    redis_url,
    socket_dir,
)
from gateway.adapters.embedded.process import Launch, RunningServer, end, launch, until_ready

_POLL_S = 0.002  # it answers some 40 ms after exec: a coarser poll would be felt
_ENDING = ((SIGTERM, 10.0),)  # it flushes the append-only file: milliseconds


async def start_redis(state_dir: Path, engine: Choice = "any") -> RunningServer:
    """Start the Redis of this state directory and return when it answers.

    Raises EmbeddedError: none found, data of another engine, in use, or it does not come up.
    """
    home = own_home(state_dir, "redis")
    held = await claim(home)
    try:
        return await _start(state_dir, home, held, engine)
    except BaseException:
        held.release()
        raise


async def _start(state_dir: Path, home: Path, held: Claim, choice: Choice) -> RunningServer:
    socket = own_directory(socket_dir(state_dir)) / REDIS_SOCKET
    mark = home / "ENGINE"
    # Without an append-only directory nothing was ever written, whatever the mark says.
    made_by = written_by(mark) if (home / "appendonlydir").exists() else None
    chosen = pick(REDIS, choice, home, made_by)
    if made_by is None:
        mark.write_text(f"{chosen.mark}\n")
    socket.unlink(missing_ok=True)
    log = home / "log"
    argv = (str(chosen.binary), *_settings(home, socket))
    child = launch(Launch(argv, home, log, SIGTERM, held.server.fileno()))
    try:
        await until_ready(child, log, partial(_answers, socket), _POLL_S)
    except BaseException:
        await end(child)
        raise
    url = redis_url(state_dir)
    return RunningServer(url, str(chosen), child.pid, log, child, held, _ENDING)


def _settings(home: Path, socket: Path) -> tuple[str, ...]:
    settings = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(home),
        "daemonize": "no",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",  # the append-only file is the record; snapshots would only double the writes
        "maxmemory-policy": "noeviction",  # an evicted account would be an unlimited one
    }
    return tuple(word for name, value in settings.items() for word in (f"--{name}", value))


async def _answers(socket: Path) -> bool:
    """Whether PING is answered with PONG: while it reads its file it says LOADING instead."""
    with suppress(OSError):
        reader, writer = await asyncio.open_unix_connection(socket)
        try:
            writer.write(b"PING\r\n")
            return await reader.readline() == b"+PONG\r\n"
        finally:
            writer.close()
    return False
