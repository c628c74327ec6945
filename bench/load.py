"""The load: keep-alive connections that send prepared requests and see every answer to its end.

Either at a fixed rate, whatever the answers do, or as fast as answers come. At a fixed rate a
request that finds no free connection waits for one, and its time counts from when it was due: a
slow answer is not forgiven the requests it kept waiting.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol, cast

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_END, _MARK = b"0\r\n\r\n", b"data: [DONE]\n\n"  # of a chunked body; of OpenAI's streams
_TAIL_BYTES = 64
_OPENED_AT_ONCE = 64  # fewer than a listener keeps waiting
_LAST_ANSWERS_S = 120.0
_now_s = time.perf_counter  # uvloop's own clock stands still for a millisecond


@dataclass(frozen=True, slots=True)
class Pace:
    """How much is sent. `rate`: requests a second; None: as fast as answers come.

    It ends after `seconds`, or sooner with the last of `requests`. Without a rate, at most
    `unbegun_max` wait for the head of their answer at any moment.
    """

    connections: int
    seconds: float
    rate: float | None = None
    requests: int | None = None
    unbegun_max: int | None = None


@dataclass(slots=True)
class Outcome:
    """What came of it. `begun`: answers of which the head has come. `waited`: requests that found
    no free connection. A stream without OpenAI's end mark counts as broken."""

    statuses: Counter[int] = field(default_factory=Counter)
    begun: int = 0
    broken: int = 0
    latencies_s: list[float] = field(default_factory=list)
    waited: int = 0
    seconds: float = 0.0

    @property
    def answered(self) -> int:
        """Answers with status 200, whole."""
        return self.statuses[200]

    @property
    def failed(self) -> int:
        """All that was sent and got no such answer."""
        return self.broken + self.statuses.total() - self.answered


class _Watch(Protocol):
    """Who is told of an answer: that its head has come, and its end (status 0: it broke off)."""

    def begun(self) -> None: ...

    def ended(self, connection: _Connection, status: int) -> None: ...


class _Connection(asyncio.Protocol):
    """One connection: sends a request, reads its answer, says so, and is free again."""

    def __init__(self, watch: _Watch) -> None:
        self._watch = watch
        self._got = b""
        self._status, self._left, self._tail = 0, -1, b""
        self.began_s = 0.0
        self.busy = self.begun = self.lost = False
        self._transport: asyncio.Transport | None = None

    def send(self, request: bytes, began_s: float) -> None:
        assert self._transport is not None
        self.busy, self.begun, self.began_s, self._status = True, False, began_s, 0
        self._transport.write(request)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass

    def data_received(self, data: bytes) -> None:
        if not self._status:
            self._got += data
            end = self._got.find(b"\r\n\r\n") + 4
            if end < 4:
                return
            self._status = int(self._got[9:12])
            told = _LENGTH.search(self._got, 0, end)
            self._left = int(told[1]) if told else -1
            data, self._got, self._tail = self._got[end:], b"", b""
            self.begun = True
            self._watch.begun()
        if self._left >= 0:
            self._left -= len(data)
            if self._left > 0:
                return
        else:
            self._tail = (self._tail + data)[-_TAIL_BYTES:]
            if not self._tail.endswith(_END):
                return
            if _MARK not in self._tail:
                self._status = 0
        self.busy = False
        self._watch.ended(self, self._status)

    def connection_lost(self, _: Exception | None) -> None:
        self.lost = True
        if self.busy:
            self.busy = False
            self._watch.ended(self, 0)


class Load:
    """Sends to one place. `run` may be called once."""

    def __init__(self, host: str, port: int, requests: Sequence[bytes], pace: Pace) -> None:
        self._host, self._port, self._requests, self._pace = host, port, requests, pace
        self.outcome = Outcome()
        self.all_begun = asyncio.Event()  # of `requests`, where they are given
        self._sent = self._open = self._unbegun = 0
        self._free: deque[_Connection] = deque()
        self._due: deque[float] = deque()
        self._stop_s = float("inf")
        self._ended = asyncio.Event()

    async def run(self) -> Outcome:
        """Send all, and wait until all is answered; what is not answered by then is broken."""
        connections = await self._connections()
        self._free.extend(connections)
        began_s = _now_s()
        try:
            if self._pace.rate is None:
                self._stop_s = began_s + self._pace.seconds
                self._fill()
            else:
                await self._keep_rate(self._pace.rate, began_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_ANSWERS_S):
                    await self._all_ended()
            self.outcome.seconds = _now_s() - began_s
            self.outcome.broken += self._open + len(self._due)
        finally:
            for connection in connections:
                connection.close()
        return self.outcome

    async def _connections(self) -> list[_Connection]:
        loop = asyncio.get_running_loop()
        made: list[_Connection] = []
        while len(made) < self._pace.connections:
            several = [
                loop.create_connection(lambda: _Connection(self), self._host, self._port)
                for _ in range(min(_OPENED_AT_ONCE, self._pace.connections - len(made)))
            ]
            made += [protocol for _, protocol in await asyncio.gather(*several)]
        return made

    async def _keep_rate(self, rate: float, began_s: float) -> None:
        total = int(self._pace.seconds * rate)
        if self._pace.requests is not None:
            total = min(total, self._pace.requests)
        asked = 0
        while asked < total:
            while asked < total and began_s + asked / rate <= _now_s():
                if connection := self._taken():
                    self._send(connection, _now_s())
                else:
                    self._due.append(began_s + asked / rate)
                    self.outcome.waited += 1
                asked += 1
            await asyncio.sleep(began_s + asked / rate - _now_s())

    async def _all_ended(self) -> None:
        while self._open or self._due:
            self._ended.clear()
            await self._ended.wait()

    def _fill(self) -> None:
        """Without a rate: send whatever may be sent now."""
        most = self._pace.unbegun_max
        while self._more() and (most is None or self._unbegun < most):
            connection = self._taken()
            if connection is None:
                return
            self._send(connection, _now_s())

    def _taken(self) -> _Connection | None:
        """A free connection, the one that has been free for longest."""
        while self._free:
            connection = self._free.popleft()
            if not connection.lost:
                return connection
        return None

    def _more(self) -> bool:
        left = self._pace.requests is None or self._sent < self._pace.requests
        return left and _now_s() < self._stop_s

    def _send(self, connection: _Connection, began_s: float) -> None:
        request = self._requests[self._sent % len(self._requests)]
        self._sent += 1
        self._open += 1
        self._unbegun += 1
        connection.send(request, began_s)

    def begun(self) -> None:
        self.outcome.begun += 1
        self._unbegun -= 1
        if self._pace.unbegun_max is not None:
            self._fill()
        if self.outcome.begun == self._pace.requests:
            self.all_begun.set()

    def ended(self, connection: _Connection, status: int) -> None:
        self._open -= 1
        if not connection.begun:
            self._unbegun -= 1
        if status:
            self.outcome.statuses[status] += 1
            self.outcome.latencies_s.append(_now_s() - connection.began_s)
        else:
            self.outcome.broken += 1
        if connection.lost:
            pass
        elif self._due:
            self._send(connection, self._due.popleft())
        else:
            self._free.append(connection)
        if self._pace.rate is None:
            self._fill()
        self._ended.set()
