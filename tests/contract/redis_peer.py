"""The other end of a connection, in the test's hands: it agrees to all but scripts.

For what no real server does at will: replies in pieces, replies nobody asked for, no reading.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from gateway.adapters.redis_store.scripts import Script
from tests.contract.redis_link import whole

SOURCE = "return {1, ARGV[1]}"
ECHO = Script("echo", SOURCE, hashlib.sha1(SOURCE.encode()).hexdigest())


def reply_to(rid: str) -> bytes:
    """What Redis answers to ECHO with this rid."""
    return f"*2\r\n:1\r\n${len(rid)}\r\n{rid}\r\n".encode()


class Peer:
    """`asked` has each script's request as it came, `client` is the newest connection's writer."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: asyncio.Queue[bytes] = asyncio.Queue()
        self.connections = 0
        self.ended = asyncio.Event()
        self.client: asyncio.StreamWriter

    async def serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.client, self.ended = client, asyncio.Event()
        ended = self.ended
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while request := await whole(reader):
                if b"EVALSHA" in request:
                    self.asked.put_nowait(request)
                else:
                    client.write(b"+OK\r\n")
        client.close()
        ended.set()

    def stop_reading(self) -> None:
        """What comes from now on stays in the socket."""
        self._transport.pause_reading()

    def read_on(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    @property
    def _transport(self) -> asyncio.ReadTransport:
        transport = self.client.transport
        assert isinstance(transport, asyncio.ReadTransport)
        return transport

    async def asked_for(self, count: int) -> list[bytes]:
        """The next requests, once they are here."""
        return [await asyncio.wait_for(self.asked.get(), 10) for _ in range(count)]


@asynccontextmanager
async def open_peer(folder: Path) -> AsyncIterator[Peer]:
    """A peer whose socket is in `folder`."""
    peer = Peer(f"unix://{folder}/peer")
    server = await asyncio.start_unix_server(peer.serve, folder / "peer")
    try:
        yield peer
    finally:
        server.close()
        if peer.connections:
            peer.read_on()
            peer.client.close()
            await peer.ended.wait()
