"""The right to do what one does at a time: an advisory lock on a connection of its own.

Postgres gives the lock up when the connection ends, however it ends, so a holder that was killed
blocks nobody; and it ends the connection of one that stands still, or whose machine is gone. Needs
a real session: behind a pooler in transaction mode the lock means nothing.
"""

from __future__ import annotations

import asyncpg

from gateway.adapters.postgres.connection import TIMEOUTS, translated


class AdvisoryLock:
    """Held by at most one connection of a database; lost with that connection."""

    def __init__(self, url: str, attempt: str, idle_ms: int | None = None) -> None:
        """`attempt`: the statement that takes it, or says that it is held. `idle_ms`: without
        being asked for so long, it is lost (None: as long as a drainer may be silent)."""
        self._url, self._attempt, self._idle_ms = url, attempt, idle_ms
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None

    def lost(self) -> bool:
        """True when the lock is not ours, as far as this side of the connection can see."""
        return self._connection is None or self._connection.is_closed()

    async def take(self) -> bool:
        """True when the lock is ours now; False: another has it.

        Called again while it is held, it asks the server, which a half-open connection fails.
        """
        taken = False
        with translated():
            try:
                if self._connection is None or self._connection.is_closed():
                    self._connection = await self._connect()
                taken = bool(await self._connection.fetchval(self._attempt))
            finally:
                if not taken:
                    self.release()
        return taken

    def release(self) -> None:
        """Give the lock up by dropping its connection; does not wait, may be called twice."""
        if self._connection is not None:
            # close() waits for the server's answer and could hang where terminate() cannot.
            self._connection.terminate()
            self._connection = None

    async def _connect(self) -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(
            self._url,
            timeout=TIMEOUTS.connect_s,
            command_timeout=TIMEOUTS.command_s,
            server_settings={
                **TIMEOUTS.server_settings(),
                # https://www.postgresql.org/docs/14/runtime-config-client.html
                "idle_session_timeout": str(self._idle_ms or TIMEOUTS.drainer_idle_ms),
            },
        )
