"""Listening: servers that start, say where they are, and stop.

Bounds on heads and silent connections are set here, once, for all ports. Who answers is not known
here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

# A kept-alive connection that says nothing is closed after this; OpenAI's SDKs keep theirs for 5 s.
_KEEPALIVE_S = 75.0
# The head of a request may take this many bytes a line and in all its fields.
_LINE_BYTES_MAX = 16_384

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class AddressTaken(Exception):
    """The port is in use, or may not be opened; the text names it."""


class Listener:
    """One running server."""

    def __init__(self, runner: web.BaseRunner, site: web.BaseSite) -> None:
        self._runner = runner
        self._site = site

    @property
    def port(self) -> int:
        """The port it listens on, also when 0 was asked for."""
        return int(self._runner.addresses[0][1])

    def url(self, host: str) -> str:
        """Where it can be reached, given the host it was told to listen on."""
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    async def stop_accepting(self) -> None:
        """Take no new connection; those that are open go on."""
        await self._site.stop()

    async def close(self) -> None:
        """End everything."""
        await self._runner.cleanup()


async def listen_raw(handle: Handle, host: str, port: int) -> Listener:
    """A low-level server: every request goes to `handle`, whose bodies stay as they were sent."""
    server = web.Server(
        handle,
        access_log=None,
        auto_decompress=False,
        keepalive_timeout=_KEEPALIVE_S,
        max_line_size=_LINE_BYTES_MAX,
        max_field_size=_LINE_BYTES_MAX,
    )
    runner = web.ServerRunner(server)
    return await _start(runner, lambda: web.TCPSite(runner, host, port), f"{host}:{port}")


async def listen_app(app: web.Application, host: str, port: int) -> Listener:
    """A server with routes, on a TCP port."""
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=_KEEPALIVE_S)
    return await _start(runner, lambda: web.TCPSite(runner, host, port), f"{host}:{port}")


async def listen_unix(app: web.Application, path: Path) -> Listener:
    """A server with routes, on a unix socket; who may open it is its directory's business."""
    _clear(path)
    runner = web.AppRunner(app, access_log=None)
    return await _start(runner, lambda: web.UnixSite(runner, str(path)), str(path))


def _clear(path: Path) -> None:
    """Remove the socket that a killed process left behind."""
    path.unlink(missing_ok=True)


async def _start(
    runner: web.BaseRunner, site_of: Callable[[], web.BaseSite], where: str
) -> Listener:
    await runner.setup()
    site = site_of()
    try:
        await site.start()
    except OSError as error:
        await runner.cleanup()
        raise AddressTaken(f"cannot listen on {where}: {error.strerror or error}") from error
    return Listener(runner, site)
