"""The Upstream port on aiohttp's ClientSession, which can go through a proxy; `direct` cannot.

A request is sent once, to the configured origin only: redirects, cookies and netrc are off, and of
the environment nothing is read. A proxy is one that the caller names.
"""

from __future__ import annotations

from collections.abc import Mapping

import aiohttp
from yarl import URL

from gateway.adapters.upstream.origin import (
    BODY_BYTES_MAX,
    KEEP_S,
    READ_HEADERS,
    RID_HEADER,
    Origin,
    head_of,
    log_refused,
)
from gateway.ports.upstream import (
    Take,
    UpstreamBroke,
    UpstreamCall,
    UpstreamHead,
    UpstreamSilent,
    UpstreamUnreachable,
)

_NOT_REACHED = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientHttpProxyError,  # the proxy would not connect
)


class SessionUpstream:
    """Fulfils ports.upstream.Upstream for all origins with one pool of connections.

    `proxies` are URLs by the names of the origins behind them; they may hold a password.
    """

    def __init__(
        self, origins: Mapping[str, Origin], proxies: Mapping[str, str] | None = None
    ) -> None:
        self._origins = origins
        self._proxies = proxies or {}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("User-Agent", "Accept"),
        )

    async def send(self, call: UpstreamCall) -> SessionAnswer:
        origin = self._origins[call.upstream]
        try:
            response = await self._session.post(
                URL(origin.base_url + origin.target(call), encoded=True),
                data=call.body,
                headers={
                    **origin.fixed_headers(),
                    RID_HEADER: call.rid,
                    **origin.user_headers(call),
                },
                allow_redirects=False,
                proxy=self._proxies.get(call.upstream),
                timeout=aiohttp.ClientTimeout(
                    total=None,
                    sock_connect=origin.connect_s,
                    connect=None,
                    sock_read=origin.idle_s,
                ),
            )
        except _NOT_REACHED as error:
            raise UpstreamUnreachable(type(error).__name__) from None
        except (TimeoutError, aiohttp.ServerTimeoutError) as error:
            raise UpstreamSilent(type(error).__name__) from None
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamBroke(type(error).__name__) from None
        try:
            return SessionAnswer(response)
        except UpstreamBroke as trouble:
            log_refused(call.upstream, trouble)
            response.close()
            raise

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()


class SessionAnswer:
    """Fulfils ports.upstream.UpstreamAnswer."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        headers = {name: found for name in READ_HEADERS if (found := response.headers.get(name))}
        codings = response.headers.getall("content-encoding", ["identity"])
        self._head = head_of(response.status, headers | {"content-encoding": ", ".join(codings)})

    @property
    def head(self) -> UpstreamHead:
        return self._head

    async def read(self) -> bytes:
        body = bytearray()

        def take(data: bytes) -> bool:
            body.extend(data)
            return len(body) <= BODY_BYTES_MAX

        if not await self.pour(take):
            raise UpstreamBroke(f"the answer is larger than {BODY_BYTES_MAX} bytes")
        return bytes(body)

    async def pour(self, take: Take) -> bool:
        while data := await self._next():
            if not take(data):
                return False
        return True

    async def _next(self) -> bytes:
        """What has come; nothing at the end."""
        try:
            return await self._response.content.readany()
        except (TimeoutError, aiohttp.ServerTimeoutError) as error:
            raise UpstreamSilent(type(error).__name__) from None
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamBroke(type(error).__name__) from None

    async def close(self) -> None:
        # A body read to its end gives its connection back by itself; any other is dropped.
        self._response.close()
