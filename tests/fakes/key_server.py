"""A server that publishes keys, on a thread of its own, and misbehaves when told to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from aiohttp import web

PATH = "/.well-known/jwks.json"


class KeyServer:
    """`answer` is what it answers with; `asked` counts requests. While `holds` it answers nobody,
    until `let_go`."""

    def __init__(self) -> None:
        self.url = ""
        self.answer = b'{"keys": []}'
        self.status, self.headers = 200, dict[str, str]()
        self.asked = 0
        self.asked_elsewhere = 0
        self.holds = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._go_on, self._stop = asyncio.Event(), asyncio.Event()

    def let_go(self) -> None:
        """Answer those who wait, and all after them."""
        self.holds = False
        self._tell(self._go_on)

    def stop(self) -> None:
        self.let_go()
        self._tell(self._stop)

    def _tell(self, event: asyncio.Event) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(event.set)

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        if request.path != PATH:
            self.asked_elsewhere += 1
            return web.Response(body=self.answer)
        self.asked += 1
        if self.holds:
            await self._go_on.wait()
        return web.Response(body=self.answer, status=self.status, headers=self.headers)

    async def run(self, ready: Future[str]) -> None:
        """Serve until stopped; `ready` is told where."""
        self._loop = asyncio.get_running_loop()
        runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ready.set_result(f"http://127.0.0.1:{runner.addresses[0][1]}{PATH}")
        await self._stop.wait()
        await runner.cleanup()


@contextmanager
def key_server() -> Iterator[KeyServer]:
    server, ready = KeyServer(), Future[str]()
    thread = threading.Thread(target=lambda: asyncio.run(server.run(ready)), daemon=True)
    thread.start()
    server.url = ready.result(10)
    try:
        yield server
    finally:
        server.stop()
        thread.join(10)
