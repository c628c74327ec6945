"""One connection of a client to the proxy port: aiohttp's server, with a way to write of our own.

Requests are read and taken in turn by aiohttp. Answers are written here, each piece in one call to
the transport; what they say is not known here.
"""

from __future__ import annotations

from aiohttp import web


class Connection(web.RequestHandler):
    """aiohttp's. `in_answer`: a head was sent whose answer is not complete yet."""

    in_answer = False

    def send(self, data: bytes) -> None:
        """Hand bytes to the kernel, or to a buffer behind it. ConnectionResetError when the client
        is gone."""
        transport = self.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        transport.write(data)

    async def drained(self) -> None:
        """Returns once the client has taken enough of what was sent; ConnectionError if it leaves
        first."""
        if self.writing_paused:
            await self._drain_helper()

    def cut(self) -> None:
        """Drop the connection, so that the client sees that the answer is not whole."""
        if self.transport is not None:
            self.transport.abort()


def connection_of(request: web.BaseRequest) -> Connection:
    """The connection on which a request came."""
    connection = request.protocol
    if not isinstance(connection, Connection):
        raise TypeError("the proxy port is served by Connection")
    return connection
