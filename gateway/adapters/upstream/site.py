"""One origin: the part of requests that never changes, and the connections that wait for a call.

The connection that was freed last is taken first, so that the others grow old and are closed. One
that its server has closed meanwhile is passed over: of the request nothing has left yet.
"""

from __future__ import annotations

import asyncio
import ssl

from yarl import URL

from gateway.adapters.upstream.answer import Answer
from gateway.adapters.upstream.connection import PIECE_BYTES, Connection
from gateway.adapters.upstream.dialing import Dialer
from gateway.adapters.upstream.origin import RID_HEADER, Origin, log_refused
from gateway.adapters.upstream.wheel import Wheel
from gateway.ports.upstream import UpstreamBroke, UpstreamCall, UpstreamUnreachable

# How many wait at most; those beyond are closed. What is in use is bounded by the calls.
IDLE_MAX = 256
# In use and waiting, of all origins. What the system refuses before (`ulimit -n`) ends alike.
CONNECTIONS_MAX = 10_000


class Site:
    """Fulfils connection.Home."""

    def __init__(self, name: str, origin: Origin, wheel: Wheel, tls: ssl.SSLContext | None) -> None:
        self._name = name
        url = URL(origin.base_url)
        self._origin = origin
        self._wheel = wheel
        self._dialer = Dialer(url, tls if url.scheme == "https" else None)
        self._idle: dict[Connection, None] = {}  # in the order in which they came back
        fixed = f"Host: {url.host_port_subcomponent}\r\n{_lines(origin.fixed_headers())}"
        self._begin = f"POST {url.raw_path.rstrip('/')}"
        self._fixed = f" HTTP/1.1\r\n{fixed}{RID_HEADER}: "

    async def send(self, call: UpstreamCall) -> Answer:
        """See the port."""
        head, body = self.request_head(call), call.body
        connection = self.take() or await self.connect()
        answer = connection.ask(head, body)
        try:
            if len(body) > PIECE_BYTES:
                await connection.write_pieces(answer, memoryview(body))
            while not answer.has_head:
                await answer.news()
        except asyncio.CancelledError:
            answer.drop()
            raise
        return answer

    def request_head(self, call: UpstreamCall) -> bytes:
        """The head of a request, to its empty line."""
        origin = self._origin
        user = _lines(origin.user_headers(call)) if origin.user_header else ""
        return (
            f"{self._begin}{origin.target(call)}{self._fixed}{call.rid}\r\n"
            f"{user}Content-Length: {len(call.body)}\r\n\r\n"
        ).encode()

    def take(self) -> Connection | None:
        """A connection that waits, as far as is known an open one."""
        while self._idle:
            connection, _ = self._idle.popitem()
            if connection.is_usable:
                return connection
            connection.drop()
        return None

    async def connect(self) -> Connection:
        """A new connection, or UpstreamUnreachable."""
        if len(self._wheel.watched) >= CONNECTIONS_MAX:
            raise UpstreamUnreachable(f"{CONNECTIONS_MAX} connections are open")
        connection = Connection(self, self._wheel, self._origin.idle_s)
        try:
            async with asyncio.timeout(self._origin.connect_s):
                await self._dialer.open(lambda: connection)
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that DNS cannot have
            raise UpstreamUnreachable(type(error).__name__) from None
        if not connection.is_usable:  # closed before this call had its turn
            raise UpstreamUnreachable("closed at once")
        return connection

    def keep(self, connection: Connection) -> None:
        """It is free: let it wait for the next call."""
        if len(self._idle) < IDLE_MAX:
            self._idle[connection] = None
        else:
            connection.drop()

    def forget(self, connection: Connection) -> None:
        """It is closed or about to be."""
        self._idle.pop(connection, None)

    def refuse(self, trouble: UpstreamBroke) -> None:
        """Say what was wrong: the caller learns only that there was no answer."""
        log_refused(self._name, trouble)


def _lines(headers: dict[str, str]) -> str:
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
