"""A process that owns one embedded store, for the tests that end or signal such a process.

Run as `embedded_owner.py STORE STATE_DIR ENGINE`, with OWNER_UID to become another user first. It
prints one JSON line when the store is up (or could not be started), "interrupted" at each SIGINT,
and stops the store when a line comes on its standard input.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Literal, cast

from gateway.adapters.embedded import EmbeddedError, start_postgres, start_redis


async def main(store: str, state_dir: Path, engine: Literal["any", "system", "wheel"]) -> None:
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, _say, "interrupted")
    asyncio.get_running_loop().add_reader(sys.stdin, told.set)
    start = {"redis": start_redis, "postgres": start_postgres}[store]
    try:
        server = await start(state_dir, engine)
    except EmbeddedError as error:
        _say(json.dumps({"error": str(error)}))
        return
    _say(json.dumps({"url": server.url, "pid": server.pid, "engine": server.engine}))
    await told.wait()
    await server.stop()
    _say("stopped")


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    # Everything is imported by now: a plain user may be unable to read a checkout of root's.
    if (uid := os.environ.get("OWNER_UID")) is not None:
        os.setgroups([])
        os.setgid(int(uid))
        os.setuid(int(uid))
    choice = cast(Literal["any", "system", "wheel"], sys.argv[3])
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), choice))
