"""How a connection to an origin is opened: its addresses, TCP, TLS.

IPv6 and IPv4 are tried side by side (RFC 8305). Certificates are verified against the names and the
authorities of the system, or SSL_CERT_FILE. It knows nothing of what is said on a connection.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable

from aiohappyeyeballs import AddrInfoType, start_connection
from yarl import URL

# As long as aiohttp's client keeps them.
_ADDRESSES_KEPT_S = 10.0
_SECOND_FAMILY_AFTER_S = 0.25  # RFC 8305, section 5


def verified_tls() -> ssl.SSLContext:
    """TLS as it ought to be; takes some milliseconds to make, and serves all origins."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class Dialer:
    """Opens connections to one host and port. `tls` is None for plain HTTP."""

    def __init__(self, url: URL, tls: ssl.SSLContext | None) -> None:
        assert url.raw_host is not None
        assert url.port is not None
        self._host, self._port = url.raw_host, url.port
        self._tls = tls
        self._lookup = asyncio.Lock()
        self._addresses: list[AddrInfoType] = []
        self._looked_up_s = 0.0

    async def open(self, protocol: Callable[[], asyncio.Protocol]) -> None:
        """Connect such a protocol. OSError or UnicodeError when that fails."""
        loop = asyncio.get_running_loop()
        addresses = await self._find()
        try:
            found = await start_connection(
                addresses, happy_eyeballs_delay=_SECOND_FAMILY_AFTER_S, interleave=1
            )
        except OSError:
            self._addresses = []
            raise
        await loop.create_connection(
            protocol,
            sock=found,
            ssl=self._tls,
            server_hostname=self._host if self._tls else None,
        )

    async def _find(self) -> list[AddrInfoType]:
        """The addresses; looked up by one call for all that want them, and kept for a moment."""
        async with self._lookup:
            loop = asyncio.get_running_loop()
            if not self._addresses or loop.time() - self._looked_up_s > _ADDRESSES_KEPT_S:
                found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
                self._addresses = [*found]
                self._looked_up_s = loop.time()
            return self._addresses
