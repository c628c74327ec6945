"""A unix socket before a real Redis: it counts what passes, and cuts, holds or crosses replies.

Only replies to scripts are tampered with; the handshake of a connection passes, delayed at most.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

OnReply = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


async def passes(reply: bytes, client: asyncio.StreamWriter) -> None:
    """The reply reaches who asked."""
    client.write(reply)


async def is_cut(reply: bytes, client: asyncio.StreamWriter) -> None:
    """The script ran, but the connection breaks before its reply is through."""
    client.close()


class Crossed:
    """Two replies reach each the other's client."""

    def __init__(self) -> None:
        self._first: tuple[bytes, asyncio.StreamWriter] | None = None

    async def __call__(self, reply: bytes, client: asyncio.StreamWriter) -> None:
        if self._first is None:
            self._first = (reply, client)
            return
        other_reply, other_client = self._first
        other_client.write(reply)
        client.write(other_reply)  # after it, also where both share a connection


class Held:
    """Replies wait until they are let go; then each reaches who asked, if it is still there."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.let_go = asyncio.Event()

    async def __call__(self, reply: bytes, client: asyncio.StreamWriter) -> None:
        self.arrived.set()
        await self.let_go.wait()
        client.write(reply)


class Link:
    """The socket's two ends. `scripts` counts the script calls that went through."""

    def __init__(self, server: str, url: str) -> None:
        self._server = server
        self.url = url
        self.on_reply: OnReply = passes
        self.delay_s = 0.0  # before every reply, those of the handshake too
        self.scripts = 0
        self.connections = 0
        self._running: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}

    async def serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._running[client] = asyncio.current_task()
        answers, server = await asyncio.open_unix_connection(self._server)
        asked: deque[bool] = deque()  # of each request whose reply is to come: is it a script's?
        try:
            await asyncio.gather(
                self._up(reader, server, asked), self._down(answers, client, asked)
            )
        finally:
            client.close()
            server.close()
            self._running.pop(client)

    async def close(self) -> None:
        """Break every connection and wait until each is done with."""
        running = [task for task in self._running.values() if task]
        for client in self._running:
            client.close()
        if running:
            await asyncio.wait(running, timeout=10)

    async def _up(
        self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, asked: deque[bool]
    ) -> None:
        with suppress(ConnectionError):
            while request := await whole(reader):
                is_script = b"EVALSHA" in request
                self.scripts += is_script
                asked.append(is_script)
                server.write(request)
        server.close()

    async def _down(
        self, answers: asyncio.StreamReader, client: asyncio.StreamWriter, asked: deque[bool]
    ) -> None:
        with suppress(ConnectionError):
            while reply := await whole(answers):
                await asyncio.sleep(self.delay_s)
                if asked.popleft():
                    await self.on_reply(reply, client)
                else:
                    client.write(reply)
        client.close()


async def whole(reader: asyncio.StreamReader) -> bytes:
    """The next whole request or reply, as it came; nothing at the end of the stream.

    https://redis.io/docs/latest/develop/reference/protocol-spec/ (RESP2)
    """
    line = await reader.readline()
    kind, count = line[:1], line[1:-2]
    if kind == b"*":
        return line + b"".join([await whole(reader) for _ in range(int(count))])
    if kind == b"$" and int(count) >= 0:
        return line + await reader.readexactly(int(count) + 2)
    return line


@asynccontextmanager
async def open_link(redis_url: str, folder: Path) -> AsyncIterator[Link]:
    """A link to the server at `redis_url`, with its socket in `folder`."""
    link = Link(urlsplit(redis_url).path, f"unix://{folder}/link")
    server = await asyncio.start_unix_server(link.serve, folder / "link")
    try:
        yield link
    finally:
        server.close()
        await link.close()
