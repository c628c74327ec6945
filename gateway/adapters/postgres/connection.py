"""The pool of connections, and what their failures mean.

Promises that no call waits without end, and that each failure has one of two names:
LedgerUnavailable (the server is away, slow or failing over: repeat later) or Rejected (the value
itself is refused: repeating cannot help). Anything else is a fault of ours and passes unchanged.
Refuses to know what is read or written.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from gateway.ports.ledger import LedgerUnavailable

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"

# SQLSTATE classes. Trouble of the server: connection, login, transaction state (a standby is read
# only), missing database, rollback, resources, lock wait, operator, system. Trouble of the value:
# data, constraint, program limit (text too long for an index).
_SERVER_CLASSES = frozenset({"08", "25", "28", "3D", "40", "53", "55", "57", "58"})
_VALUE_CLASSES = frozenset({"22", "23", "54"})


class Rejected(ValueError):
    """Postgres, or the driver on its behalf, refuses a value."""


class _Foreign(Exception):
    """Carries what code of others raised past `translated`, which must not rename it."""

    def __init__(self, error: Exception) -> None:
        super().__init__(repr(error))
        self.error = error


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait, and how many connections one process may hold.

    `statement_ms` is shorter than `command_s`: the server gives up first, and the connection
    survives. `idle_in_transaction_ms` ends what a frozen process left open, `lock_ms` keeps a
    schema change from queueing everybody behind one long reader. A drainer that did not ask for
    `drainer_idle_ms` whether its lock holds has lost it: it asks about once a second. Four
    connections are enough for one process: only first sights of a user or key, the drain and admin
    calls come here.
    """

    connect_s: float = 5
    acquire_s: float = 5
    command_s: float = 10
    statement_ms: int = 8_000
    lock_ms: int = 5_000
    idle_in_transaction_ms: int = 30_000
    drainer_idle_ms: int = 10_000
    connections_max: int = 4

    def server_settings(self) -> dict[str, str]:
        """What each session is opened with. Keepalives let the server notice a vanished client
        (and give up its lock) in a minute instead of two hours; JIT only slows short statements."""
        return {
            "application_name": "quota-gateway",
            "jit": "off",
            "statement_timeout": str(self.statement_ms),
            "lock_timeout": str(self.lock_ms),
            "idle_in_transaction_session_timeout": str(self.idle_in_transaction_ms),
            "tcp_keepalives_idle": "30",
            "tcp_keepalives_interval": "10",
            "tcp_keepalives_count": "3",
        }


TIMEOUTS = Timeouts()


async def open_pool(url: str, timeouts: Timeouts = TIMEOUTS) -> Pool:
    """Connect. LedgerUnavailable when the server does not answer within `connect_s` or refuses the
    login; ValueError when the URL makes no sense."""
    with translated():
        pool = await asyncpg.create_pool(
            url,
            min_size=0,  # else asyncpg reconnects by itself, with a traceback for each failure
            max_size=timeouts.connections_max,
            timeout=timeouts.connect_s,
            command_timeout=timeouts.command_s,
            server_settings=timeouts.server_settings(),
        )
        async with pool.acquire():  # the proof that the server is there
            return pool


@contextmanager
def translated() -> Iterator[None]:
    """Give each failure of the driver its name. The only place that reads SQLSTATEs."""
    try:
        yield
    except _Foreign as passing:
        raise passing.error from passing.error.__cause__
    except asyncpg.PostgresError as error:
        sqlstate_class = (error.sqlstate or "08")[:2]
        if sqlstate_class in _SERVER_CLASSES:
            raise LedgerUnavailable(_text(error)) from error
        if sqlstate_class in _VALUE_CLASSES:
            raise Rejected(_text(error)) from error
        raise
    except asyncpg.InterfaceError as error:
        # A value the driver cannot encode is an InterfaceError too, and a ValueError besides.
        raise (Rejected if isinstance(error, ValueError) else LedgerUnavailable)(
            _text(error)
        ) from error
    except asyncpg.InternalClientError as error:
        # The server has said goodbye on a waiting connection, and its end was not read yet.
        raise LedgerUnavailable(_text(error)) from error
    except OSError as error:  # refused, reset, and every TimeoutError
        raise LedgerUnavailable(_text(error)) from error


@contextmanager
def foreign() -> Iterator[None]:
    """For code of others inside a session: what it raises ends the session and passes unchanged."""
    try:
        yield
    except Exception as error:
        raise _Foreign(error) from error


@asynccontextmanager
async def session(pool: Pool) -> AsyncIterator[Connection]:
    """A connection of the pool, given back at the end; failures inside are translated."""
    with translated():
        async with pool.acquire(timeout=TIMEOUTS.acquire_s) as connection:
            yield connection


@asynccontextmanager
async def transaction(pool: Pool) -> AsyncIterator[Connection]:
    """A session in which all happens, or nothing."""
    async with session(pool) as connection, connection.transaction():
        yield connection


def _text(error: Exception) -> str:
    return f"postgres: {str(error) or 'no answer in time'} ({type(error).__name__})"
