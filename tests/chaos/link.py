"""A link between two processes, in the bench's hands: it passes, delays, holds back and breaks.

It carries bytes and knows no protocol. What it has taken it passes on in order, also after who sent
it is gone, as a network would: a fault decides whether, and when. Nothing is ever dropped from the
middle of a connection; what is lost is lost because its connection is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from gateway.ports.tasks import spawn

_QUEUED_BYTES_MAX = 2**20
_END, _GONE = b"", None  # the sender says no more; the sender is not there any more
Connect = Callable[[Callable[[], asyncio.Protocol]], Awaitable[object]]


class Way:
    """One direction of all connections of a link."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.is_open = asyncio.Event()
        self.is_open.set()


class _End(asyncio.Protocol):
    """One end of a connection: what arrives there waits in `arrived`."""

    def __init__(self, begun: Callable[[_End], None] | None = None) -> None:
        self.arrived: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.transport: asyncio.Transport
        self._begun = begun
        self._queued_bytes = 0
        self._has_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self._begun is not None:
            self._begun(self)

    def data_received(self, data: bytes) -> None:
        self.arrived.put_nowait(data)
        self._queued_bytes += len(data)
        if self._queued_bytes > _QUEUED_BYTES_MAX:
            self.transport.pause_reading()

    def taken(self, data: bytes) -> None:
        """This much has gone on."""
        self._queued_bytes -= len(data)
        if self._queued_bytes <= _QUEUED_BYTES_MAX and not self.transport.is_closing():
            self.transport.resume_reading()

    def send(self, data: bytes) -> None:
        """Write, unless nothing can be written any more; no data: say that nothing follows."""
        if self._has_ended or self.transport.is_closing():
            return
        if data != _END:
            self.transport.write(data)
            return
        self._has_ended = True
        with suppress(OSError):  # its other side may be gone by now
            self.transport.write_eof()

    def eof_received(self) -> bool:
        self.arrived.put_nowait(_END)
        return True

    def connection_lost(self, _: Exception | None) -> None:
        self.arrived.put_nowait(_GONE)


class Link:
    """All connections from one process to one server. `connect` opens one to the server."""

    def __init__(self, name: str, connect: Connect) -> None:
        self.name = name
        self._connect = connect
        self.up, self.down = Way(), Way()
        self.refuses = False
        self._running: dict[asyncio.Task[None], tuple[_End, _End]] = {}
        self._opening: set[asyncio.Task[None]] = set()

    def accept(self) -> asyncio.Protocol:
        """The protocol of a new connection from the client."""
        return _End(self._begun)

    @property
    def connections(self) -> int:
        """How many have both their ends."""
        return len(self._running)

    def cut(self) -> None:
        """Break every connection now; what was on its way is lost."""
        for task, ends in list(self._running.items()):
            task.cancel()
            for end in ends:
                end.transport.abort()

    def half_close(self) -> None:
        """Tell the server on every connection that nothing more will come."""
        for _, server in self._running.values():
            server.send(_END)

    def heal(self) -> None:
        """From now on everything passes at once, also what was held back."""
        self.refuses = False
        for way in (self.up, self.down):
            way.delay_s = 0.0
            way.is_open.set()

    async def close(self) -> None:
        """Break everything; returns when nothing of it runs."""
        tasks = [*self._running, *self._opening]
        self.cut()
        if tasks:
            await asyncio.wait(tasks)

    def _begun(self, client: _End) -> None:
        if self.refuses:
            client.transport.abort()
            return
        task = spawn(self._open(client), f"open {self.name}")
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, client: _End) -> None:
        server = _End()
        try:
            await self._connect(lambda: server)
        except OSError:
            client.transport.abort()
            return
        task = spawn(self._carry(client, server), f"carry {self.name}")
        self._running[task] = (client, server)
        task.add_done_callback(lambda done: self._running.pop(done, None))

    async def _carry(self, client: _End, server: _End) -> None:
        try:
            await asyncio.gather(
                self._pass(client, server, self.up), self._pass(server, client, self.down)
            )
        finally:
            client.transport.abort()
            server.transport.abort()

    async def _pass(self, source: _End, sink: _End, way: Way) -> None:
        while (data := await source.arrived.get()) is not _GONE:
            await way.is_open.wait()
            if way.delay_s:
                await asyncio.sleep(way.delay_s)
            sink.send(data)
            source.taken(data)
        await way.is_open.wait()
        sink.transport.close()  # once all is written; the other side then hears of it
