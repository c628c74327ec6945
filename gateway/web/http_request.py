"""One request as the proxy port reads it: what aiohttp's parser has found, and no more.

aiohttp's own request looks up addresses, keeps a cache for what it computes, and room for what an
application may want to put there; making one and asking it took a fortieth of a call. What a
request means is not known here.
"""

from __future__ import annotations

from aiohttp.http import RawRequestMessage
from aiohttp.streams import StreamReader


class HttpRequest:
    """`raw_path` is the target as it was sent. `protocol` is the connection on which it came."""

    __slots__ = ("content", "headers", "keep_alive", "method", "protocol", "raw_path", "version")

    def __init__(self, message: RawRequestMessage, content: StreamReader, protocol: object) -> None:
        self.method, self.raw_path = message.method, message.path
        self.headers, self.version = message.headers, message.version
        self.keep_alive = not message.should_close
        self.content = content
        self.protocol = protocol

    @property
    def content_length(self) -> int | None:
        """As announced; the parser let nothing pass but a number."""
        length = self.headers.get("Content-Length")
        return None if length is None else int(length)

    def peer(self) -> str | None:
        """The address that the connection came from; None of one that is gone, or has none."""
        transport = getattr(self.protocol, "transport", None)
        found = None if transport is None else transport.get_extra_info("peername")
        return str(found[0]) if found else None

    def _cancel(self, error: BaseException) -> None:
        """Called by aiohttp when the client leaves, or has to."""
        self.content.set_exception(error)
