"""A server that does, byte for byte, what a test tells it, and remembers what it was sent."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Literal

Then = Literal["keep", "close", "reset", "hang", "deaf", "abort"]


@dataclass(frozen=True)
class Reply:
    """What is answered to a request, and what becomes of the connection then.

    "hang" reads on until the other side closes, "deaf" reads nothing more, "abort" closes
    without the words that TLS has for it. With `early` it is
    answered as soon as the request's head is there.
    """

    raw: bytes = b""
    then: Then = "keep"
    early: bool = False


def http(body: bytes = b"{}", *headers: str, status: str = "200 OK") -> bytes:
    """A whole answer with a Content-Length."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*head, "", ""]).encode("utf-8", "surrogateescape") + body


def bare(*headers: str, status: str = "200 OK", version: str = "1.1") -> bytes:
    """A head, and nothing said of a body."""
    return "\r\n".join([f"HTTP/{version} {status}", *headers, "", ""]).encode()


def chunked(*chunks: bytes) -> bytes:
    """The head and so many chunks of a body that has not ended."""
    parts = [b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks]
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    return head + b"".join(parts)


class Server:
    """A server on a free port. `requests` are heads and bodies as they came.

    A request without a reply left is not answered.
    """

    def __init__(self, replies: list[Reply]) -> None:
        self.replies = replies
        self.requests: list[tuple[bytes, bytes]] = []
        self.rest = b""  # what was read after the last reply, until the other side closed
        self.connections = 0
        self.closed = 0
        self.writers: list[asyncio.StreamWriter] = []
        self._one_closed = asyncio.Event()
        self._ended = asyncio.Event()
        self.url = ""

    @asynccontextmanager
    async def running(
        self, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
    ) -> AsyncIterator[Server]:
        server = await asyncio.start_server(self._serve, host, 0, ssl=tls)
        scheme, shown = "https" if tls else "http", f"[{host}]" if ":" in host else host
        self.url = f"{scheme}://{shown}:{server.sockets[0].getsockname()[1]}/v1"
        try:
            yield self
        finally:
            server.close()
            self._ended.set()
            async with asyncio.timeout(10):
                while self.closed < self.connections:
                    self._one_closed.clear()
                    await self._one_closed.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            while True:
                reply = await self._asked(reader)
                writer.write(reply.raw)
                await writer.drain()
                if reply.then == "hang":
                    self.rest = await reader.read()
                if reply.then == "deaf":
                    await self._ended.wait()
                if reply.then == "abort":
                    writer.transport.abort()
                if reply.then == "reset":
                    linger = struct.pack("ii", 1, 0)
                    writer.get_extra_info("socket").setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, linger
                    )
                if reply.then != "keep":
                    return
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            return
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
            self.closed += 1
            self._one_closed.set()

    async def _asked(self, reader: asyncio.StreamReader) -> Reply:
        """Read one request; what is to be answered to it."""
        head = await reader.readuntil(b"\r\n\r\n")
        reply = self.replies.pop(0) if self.replies else Reply(b"", "hang")
        found = re.search(rb"(?i)content-length: (\d+)", head)
        expected = 0 if reply.early or found is None else int(found.group(1))
        self.requests.append((head, await reader.readexactly(expected)))
        return reply


def serving(*replies: Reply | bytes) -> Server:
    """A server with these replies, in this order."""
    return Server([each if isinstance(each, Reply) else Reply(each) for each in replies])


def closed_port() -> str:
    """The URL of a port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"
