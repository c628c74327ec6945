"""Listening: servers that start, say where they are, and stop.

Bounds on heads and silent connections are set here, once, for all ports. Who answers is not known
here.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.http import HttpProcessingError

from gateway.core.refusal import Case, Refused
from gateway.web.connection import Connection, Handle, Shared, too_many, too_slow
from gateway.web.crowd import Crowd
from gateway.web.error_body import NO_CALL, refusal_response
from gateway.web.patience import Patience
from gateway.web.quota_headers import SERVER
from gateway.web.reserved import AddressTaken, url_of
from gateway.web.response import Whole, unasked

# A kept-alive connection that says nothing is closed after this; OpenAI's SDKs keep theirs for 5 s.
_KEEPALIVE_S = 75.0
# Whoever closes has waited for the calls before; this is for what nobody could have waited for.
_LAST_S = 1.0
# The head of a request may take this many bytes a line and in all its fields.
_LINE_BYTES_MAX = 16_384


def _without_bytes(record: logging.LogRecord) -> bool:
    """aiohttp logs a head that is not HTTP as a fault and quotes it; it may hold a key."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        record.levelno, record.levelname = logging.INFO, "INFO"
        record.msg, record.exc_info = f"not HTTP, from %s: {type(error).__name__}", None
    return True


_log = logging.getLogger("gateway.http")
_log.addFilter(_without_bytes)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What clients of the proxy port may take: `request_s` for a head, and again for a body;
    `unread_s` to read some of what was sent; `connections_max` connections, `per_peer_max` of them
    from one address (None: as many as in all)."""

    request_s: float
    unread_s: float
    connections_max: int = 10_000
    per_peer_max: int | None = None


class _Server(web.Server):
    """Makes a connection of ours for each client."""

    def __init__(self, handle: Handle, bounds: Bounds, **kept: Any) -> None:
        super().__init__(_unused, **kept)
        self._shared = Shared(
            handle=handle,
            not_http=_last(Refused(Case.INVALID_HTTP, "The request is not valid HTTP.")),
            too_slow=_last(too_slow()),
            requests=Patience(bounds.request_s, Connection.late),
            readers=Patience(bounds.unread_s, Connection.left_unread),
            crowd=Crowd(bounds.connections_max, bounds.per_peer_max),
            too_many=unasked(_last(too_many())),
        )

    def __call__(self) -> web.RequestHandler:
        return Connection(self, self._shared, loop=self._loop, **self._kwargs)


def _last(refused: Refused) -> Whole:
    """The answer to what is no call, after which the connection ends."""
    answer = refusal_response(refused, NO_CALL, ())
    answer.is_last = True
    return answer


async def _unused(_: web.BaseRequest) -> web.StreamResponse:
    raise AssertionError("connections of ours answer by themselves")


class Listener:
    """One running server."""

    def __init__(self, runner: web.BaseRunner, site: web.BaseSite) -> None:
        self._runner = runner
        self._site = site

    @property
    def port(self) -> int:
        """The port it listens on, also when 0 was asked for."""
        return int(self._runner.addresses[0][1])

    def drop_clients(self) -> None:
        """Close the connections of the proxy port, also those whose clients do not read."""
        server = self._runner.server
        for connection in server.connections if isinstance(server, web.Server) else ():
            if isinstance(connection, Connection):
                connection.cut()

    def url(self, host: str) -> str:
        """Where it can be reached, given the host it was told to listen on."""
        return url_of(host, self.port)

    async def stop_accepting(self) -> None:
        """Take no new connection; those that are open go on."""
        await self._site.stop()

    async def close(self) -> None:
        """End everything."""
        await self._runner.cleanup()


async def listen_raw(handle: Handle, host: str, port: int, bounds: Bounds) -> Listener:
    """A low-level server: every request goes to `handle`, whose bodies stay as they were sent.

    Other processes of this user may listen there too; who may not is the reservation's business.
    """
    server = _raw_server(handle, bounds)
    runner = web.ServerRunner(server, shutdown_timeout=_LAST_S)
    return await _start(
        runner, lambda: web.TCPSite(runner, host, port, reuse_port=True), f"{host}:{port}"
    )


def _raw_server(handle: Handle, bounds: Bounds) -> _Server:
    return _Server(
        handle,
        bounds,
        access_log=None,
        logger=_log,
        auto_decompress=False,
        keepalive_timeout=_KEEPALIVE_S,
        max_line_size=_LINE_BYTES_MAX,
        max_field_size=_LINE_BYTES_MAX,
    )


class Inside:
    """The same server without a port: for the one client that is this process."""

    def __init__(self, handle: Handle, bounds: Bounds) -> None:
        self._server = _raw_server(handle, bounds)

    async def ask(self, request: bytes) -> bytes:
        """Send one request, which must ask for the connection to be closed; the whole answer."""
        theirs, ours = socket.socketpair()
        with theirs, ours:
            for each in (theirs, ours):
                each.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.connect_accepted_socket(self._server, theirs)
            reader, writer = await asyncio.open_unix_connection(sock=ours)
            try:
                writer.write(request)
                return await reader.read()
            finally:
                writer.close()


async def listen_app(
    app: web.Application, host: str, port: int, reserved: bool = False
) -> Listener:
    """A server with routes, on a TCP port, which may be reserved for this process."""
    app.on_response_prepare.append(_tell_no_version)
    runner = _runner(app)
    return await _start(
        runner,
        lambda: web.TCPSite(runner, host, port, reuse_port=reserved or None),
        f"{host}:{port}",
    )


async def listen_unix(app: web.Application, path: Path) -> Listener:
    """A server with routes, on a unix socket; who may open it is its directory's business."""
    _clear(path)
    runner = _runner(app)
    return await _start(runner, lambda: web.UnixSite(runner, str(path)), str(path))


def _runner(app: web.Application) -> web.AppRunner:
    """Bodies stay as they were sent: nobody unpacks a small one that becomes huge."""
    return web.AppRunner(
        app,
        access_log=None,
        logger=_log,
        keepalive_timeout=_KEEPALIVE_S,
        auto_decompress=False,
    )


async def _tell_no_version(_: web.Request, response: web.StreamResponse) -> None:
    name, value = SERVER
    response.headers[name] = value


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
        raise AddressTaken(where, error) from error
    return Listener(runner, site)
