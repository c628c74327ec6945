"""One connection that many calls share: requests in order, replies in the same order.

Redis answers a connection's requests one after another, so the n-th reply is the n-th request's. A
call that nobody waits for any more keeps its place: its reply is read and dropped. Once a reply is
not its call's, no later one can be trusted, and everything that waits fails. Asyncio's own loop and
uvloop write at once what they are given; what the kernel did not take is told by pause_writing.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

import hiredis
import msgspec
from redis.asyncio.connection import DefaultParser
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError

from gateway.adapters.redis_store.calls import (
    Observe,
    WrongReply,
    check_echo,
    translated,
)
from gateway.adapters.redis_store.packing import packed
from gateway.adapters.redis_store.scripts import Script
from gateway.ports.quota_store import StoreNotAsked, StoreUnavailable

# A server that reads nothing must not fill this process's memory: calls beyond these fail at once.
# At 2,000 requests a second, some 600 calls are under way when Redis is silent for 150 ms.
CALLS_MAX = 4096
BYTES_MAX = 32 * 2**20

# Each look is a turn of the loop, and each turn reads what the socket has.
_LOOKS = 3
_MORE = object()  # what the reader says when a reply is not whole yet


class Call(msgspec.Struct):
    """One request and who waits for its reply.

    `rid` is what a script must echo, if anything; `read` makes the result of the reply. `until_s`
    (time.monotonic) is 0 until the bytes go out: a loop that is late is no fault of Redis.
    """

    future: asyncio.Future[Any]
    request: bytes
    script: Script | None
    rid: bytes
    read: Callable[[Any], Any] | None
    began_s: float
    until_s: float = 0.0
    is_repeated: bool = False


class Line(asyncio.Protocol):
    """Takes over a connection that redis-py has opened and logged in.

    `is_open` turns False when it breaks, or when a call was not answered in time: the server may be
    gone without a word. Calls under way may still be answered then, each within its deadline.
    """

    def __init__(self, connection: Any, deadline_s: float, observe: Observe) -> None:
        self._deadline_s = deadline_s
        self._observe = observe
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(replyError=DefaultParser.parse_error, notEnoughData=_MORE)
        self._out: list[Call] = []  # of this turn of the loop
        self._pending: deque[Call] = deque()
        self._bytes = 0  # of the requests in both
        self._loading: set[str] = set()  # digests of scripts that are on their way
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._looks = 0
        self.is_open = True
        self.taken: asyncio.Future[None] | None = None  # done once the kernel has every byte
        # Kept for as long as the transport: a writer that is collected closes it.
        self._writer: asyncio.StreamWriter = connection._writer
        connection._reader = connection._writer = None
        self._transport: asyncio.WriteTransport = self._writer.transport
        self._transport.set_protocol(self)
        # TLS pauses from the mark on, all others beyond it.
        mark = 0 if self._transport.get_extra_info("sslcontext") is None else 1
        self._transport.set_write_buffer_limits(high=mark, low=0)

    @property
    def is_used(self) -> bool:
        """Whether calls wait on it, open or not."""
        return bool(self._pending or self._out)

    def ask(self, call: Call) -> bool:
        """Send with the other calls of this turn of the loop; True when no other is under way.
        StoreNotAsked when too much waits already."""
        out = self._out
        under_way = len(self._pending) + len(out)
        size = self._bytes + len(call.request)
        if size > BYTES_MAX or under_way >= CALLS_MAX:
            raise StoreNotAsked("too many calls are waiting for Redis")
        self._bytes = size
        if not out:
            self._loop.call_soon(self.flush)
        out.append(call)
        return not under_way

    def flush(self) -> None:
        """Send now. With `taken` None afterwards, every byte is in the kernel's hands."""
        calls = self._out
        if not calls:
            return
        self._out = []
        until_s = monotonic() + self._deadline_s
        is_watched, requests = self._timer is not None, []
        for call in calls:
            requests.append(call.request)
            if call.until_s:
                is_watched = False  # it has waited before, so it may be over sooner than all others
            else:
                call.until_s = until_s
        self._pending.extend(calls)
        if not is_watched:
            self._watch()
        self._transport.write(b"".join(requests))

    def end(self, error: BaseException) -> None:
        """Close; whatever waits fails."""
        self.is_open = False
        if self._timer is not None:
            self._timer.cancel()
        self._transport.abort()
        self.resume_writing()
        calls = (*self._pending, *self._out)
        self._pending.clear()
        self._out.clear()
        for call in calls:
            _fail(call, error)

    # --- what the loop tells ---------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        now_s, next_reply, pending = monotonic(), self._reader.gets, self._pending
        observe = self._observe
        try:
            self._reader.feed(data)
            while (reply := next_reply()) is not _MORE:
                if not pending:
                    raise WrongReply
                call = pending.popleft()
                self._bytes -= len(call.request)
                try:
                    names_rid = reply[1] == call.rid
                except (TypeError, IndexError):
                    names_rid = False
                if not names_rid and not self._is_answer(call, reply):
                    continue
                if call.script is not None:
                    observe(call.script.name, now_s - call.began_s)
                try:
                    call.future.set_result(call.read(reply) if call.read else reply)
                except Exception as error:  # of `read`: the caller's, as if it had read for itself
                    if not call.future.done():  # else nobody waits for it any more
                        call.future.set_exception(error)
        except WrongReply as error:
            self.end(error)
        except hiredis.HiredisError as error:
            self.end(ConnectionError(f"what the server sent is no reply: {error}"))
        if not self.is_open and not self._pending and not self._out:
            self.end(ConnectionError("replaced"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(exc or ConnectionError("the server closed the connection"))

    def pause_writing(self) -> None:
        self.taken = self._loop.create_future()

    def resume_writing(self) -> None:
        if self.taken is not None and not self.taken.done():
            self.taken.set_result(None)
        self.taken = None

    # --- replies ---------------------------------------------------------------------------------

    def _is_answer(self, call: Call, reply: Any) -> bool:
        """Whether a reply without the call's rid is what was asked for; False: it is dealt with."""
        if isinstance(reply, RedisError):
            self._refused(call, reply)
            return False
        if call.script is not None:
            try:
                check_echo(reply, call.rid)
            except WrongReply as error:
                _fail(call, error)
                raise
        return True

    def _refused(self, call: Call, error: RedisError) -> None:
        if isinstance(error, ReadOnlyError):  # it is a replica now: the next call looks for another
            self.is_open = False
        if not isinstance(error, NoScriptError) or call.script is None or call.is_repeated:
            _fail(call, error)
            return
        if call.script.sha not in self._loading:
            self._load(call.script)
        call.is_repeated = True
        self._again(call)

    def _load(self, script: Script) -> None:
        self._loading.add(script.sha)
        loaded: asyncio.Future[Any] = self._loop.create_future()
        loaded.add_done_callback(lambda done: self._loaded(script, done))
        request = packed("SCRIPT", "LOAD", script.source)
        self._again(Call(loaded, request, None, b"", None, monotonic()))

    def _loaded(self, script: Script, done: asyncio.Future[Any]) -> None:
        self._loading.discard(script.sha)
        done.exception()  # if there is one, the repeated calls will fail and tell

    def _again(self, call: Call) -> None:
        try:
            self.ask(call)
        except StoreUnavailable as error:
            _fail(call, error)

    # --- the deadline ----------------------------------------------------------------------------

    def _watch(self) -> None:
        """Look when the first of the calls is over: one timer for all, some seven a second."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._looks = None, _LOOKS
        soonest_s = min((call.until_s for call in self._pending), default=math.inf)
        if soonest_s < math.inf:
            self._timer = self._loop.call_later(max(0.0, soonest_s - monotonic()), self._look)

    def _look(self) -> None:
        now_s = monotonic()
        overdue = [call for call in self._pending if call.until_s <= now_s]
        if not overdue:
            self._watch()
        elif self._looks:
            self._looks -= 1
            self._timer = self._loop.call_soon(self._look)
        else:
            self._give_up(overdue)

    def _give_up(self, overdue: list[Call]) -> None:
        """These are over. The younger ones may still be answered; what comes next goes elsewhere"""
        self.is_open = False
        for call in overdue:
            _fail(call, TimeoutError("no reply in time"))
            call.until_s = math.inf
        self._watch()
        if self._timer is None and not self._out:  # nobody waits any more
            self.end(TimeoutError("no reply in time"))


def _fail(call: Call, error: BaseException) -> None:
    if not call.future.done():
        call.future.set_exception(translated(error))
