"""What a script call promises, whichever way it goes: bounded in time, its own reply, sent once.

redis-py would repeat a dropped call ten times; a repeated charge is somebody's money, so nothing is
sent twice but after NOSCRIPT (the script did not run then). What a call did that was cancelled,
timed out or lost its connection is unknown; only the caller's rid can tell. Here is what both
clients share: the interface, redis-py's connections, and the translation of errors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from redis.asyncio.connection import BlockingConnectionPool, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from gateway.adapters.redis_store.scripts import NAMES, Script
from gateway.adapters.redis_store.sentinel import master_connections
from gateway.adapters.redis_store.server_watch import Greet
from gateway.adapters.redis_store.urls import is_sentinel
from gateway.ports.quota_store import StoreRejected, StoreUnavailable

# One call lasts well under a millisecond, so 64 connections carry tens of thousands a second.
CONNECTIONS_MAX = 64

# redis-py strips "ERR " from an error's text; these are the scripts' own words and a wrong type.
_REJECTIONS = (*(f"{name}:" for name in NAMES), "WRONGTYPE")

T = TypeVar("T")
Observe = Callable[[str, float], None]
Keys = tuple[str, ...]
Args = Sequence[str | bytes | int]
Read = Callable[[list[Any]], T]


class NoReply(StoreUnavailable):
    """Nothing came in time, or the connection failed; a server that refuses has answered."""


class WrongReply(StoreUnavailable):
    """What came is the reply of another call."""

    def __init__(self) -> None:
        super().__init__("the reply belongs to another call")


class Elsewhere(StoreUnavailable):
    """The node of a cluster ran nothing: the keys are with another (`moved_to`, where it says
    which: host and port), on their way there, or with none."""

    def __init__(self, told: str, moved_to: tuple[str, int] | None = None) -> None:
        super().__init__(told)
        self.moved_to = moved_to


class Closed(StoreUnavailable):
    """Called after `aclose`: whoever closes has ended those who call, so this tells of one that
    goes on unasked, and must not connect again behind its back."""

    def __init__(self) -> None:
        super().__init__("the connection to Redis was closed by this process")


class Calls(Protocol):
    """Runs scripts by digest, each within the deadline it was made with.

    Where a call names a `rid`, the reply must name it too, or it counts as none. StoreUnavailable:
    the outcome is unknown. StoreRejected: nothing happened, the call itself is wrong.
    """

    async def run(
        self,
        script: Script,
        keys: Keys,
        args: Args,
        rid: str = "",
        read: Read[Any] | None = None,
    ) -> Any:
        """Send and wait: the reply, a list, or what `read` makes of it."""
        ...

    async def send(
        self, script: Script, keys: Keys, args: Args, rid: str, read: Read[T]
    ) -> asyncio.Future[T]:
        """Returns once the bytes are in the kernel's hands; the future brings what `read` makes of
        the reply."""
        ...

    async def command(self, *parts: str | bytes | int) -> Any:
        """One plain command under the same rules."""
        ...

    async def commands(self, requests: Sequence[Args]) -> list[Any]:
        """Several plain commands in one write, their replies in order; one deadline for all. Where
        only some servers of a cluster answer, a StoreUnavailable stands in the others' places."""
        ...

    async def aclose(self) -> None:
        """Close what is connected; calls under way fail, and so does every later one."""
        ...


def open_connections(url: str, deadline_s: float, greet: Greet | None = None) -> ConnectionPool:
    """Connections that never retry, and wait at most `deadline_s` for a server or their turn.

    With `greet`, a connection is used once that has returned. Not for the URL of a cluster, each of
    whose nodes has its own.
    """
    options: dict[str, Any] = {
        "protocol": 2,  # one form of reply, and none that nobody asked for
        "redis_connect_func": greet,
        "max_connections": CONNECTIONS_MAX,
        "timeout": deadline_s,
        "socket_connect_timeout": deadline_s,
        "socket_timeout": None,  # the deadline is kept by who calls, around the whole call
        "retry": Retry(NoBackoff(), 0),
    }
    if is_sentinel(url):
        return master_connections(url, deadline_s, options)
    return BlockingConnectionPool.from_url(url, **options)


def check_echo(reply: Any, rid: bytes) -> None:
    """WrongReply unless it is a script's, and names this rid if there is one. The leak of 20 March
    2023 at OpenAI was replies that reached the wrong caller, with this client library."""
    if not isinstance(reply, list) or (rid and (len(reply) < 2 or reply[1] != rid)):
        raise WrongReply


def translated(error: BaseException) -> BaseException:
    """redis-py's and the system's errors as the port's; any other error as it is."""
    if isinstance(error, ResponseError) and str(error).startswith(_REJECTIONS):
        return StoreRejected(str(error))
    if isinstance(error, RedisConnectionError | RedisTimeoutError | OSError):  # TimeoutError is one
        return NoReply(f"{type(error).__name__}: {error}")
    if isinstance(error, MovedError):
        return Elsewhere(f"MOVED {error}", (error.host, error.port) if error.host else None)
    if isinstance(error, AskError | TryAgainError | ClusterDownError):
        return Elsewhere(f"{type(error).__name__}: {error}")
    if isinstance(error, RedisError):
        return StoreUnavailable(f"{type(error).__name__}: {error}")
    return error


class Translated:
    """Raises the port's errors; NOSCRIPT passes, because its script did not run."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, NoScriptError):
            return
        told = translated(error)
        if told is not error:
            raise told from error
