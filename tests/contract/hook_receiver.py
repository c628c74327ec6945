"""A receiver of webhooks (aiohttp's server) that answers as it is told and keeps what came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web


@dataclass
class Receiver:
    """`url` is where it listens. `answers` are statuses for the next requests, then 200."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    body: bytes = b""
    hangs: bool = False

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Any path."""
        self.paths.append(request.path)
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.got.append((headers, await request.read()))
        if self.hangs:
            await asyncio.Event().wait()
        status = self.answers.pop(0) if self.answers else 200
        return web.Response(status=status, body=self.body, headers={"location": "/elsewhere"})


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """On a free port of this machine, while the block lasts."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    receiver.url = f"http://{host}:{port}/hook/S3CRET-PATH?token=S3CRET"
    try:
        yield receiver
    finally:
        await runner.cleanup()
