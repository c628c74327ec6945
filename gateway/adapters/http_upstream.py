"""The Upstream port on aiohttp's ClientSession.

A request is sent once, to the configured origin only: redirects, cookies, proxies and netrc of the
environment are off, answers are asked for uncompressed, and headers pass by allow-list both ways.
The upstream key is added here and nowhere else; it appears in no error.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

import aiohttp
from yarl import URL

from gateway.ports.upstream import (
    UpstreamBroke,
    UpstreamCall,
    UpstreamHead,
    UpstreamSilent,
    UpstreamUnreachable,
)

# Answers without streaming are read whole; the largest chat answers are under 1 MiB.
BODY_BYTES_MAX = 64 * 2**20
# No figures of the shared account, no cookies, no ids of our organisation.
_RELAYED = ("openai-processing-ms", "openai-version")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an upstream is and how to be let in. `user_header`: tell it the user id, or None.

    With `api_version` it is an Azure OpenAI resource of the older form, which names a model's
    deployment in the path: https://learn.microsoft.com/azure/ai-foundry/openai/reference.
    """

    base_url: str
    api_key: str
    connect_s: float
    idle_s: float
    user_header: str | None = None
    auth: Literal["bearer", "api-key"] = "bearer"
    api_version: str | None = None

    def url(self, call: UpstreamCall) -> URL:
        """Where a call goes. Nothing in it is taken from a request but a configured model name."""
        if self.api_version is None:
            return URL(self.base_url + call.path)
        deployment = quote(call.model, safe="")
        return URL(
            f"{self.base_url}/openai/deployments/{deployment}{call.path}"
            f"?api-version={self.api_version}",
            encoded=True,
        )


class HttpUpstream:
    """Fulfils ports.upstream.Upstream for all origins with one pool of connections."""

    def __init__(self, origins: Mapping[str, Origin]) -> None:
        self._origins = origins
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("User-Agent", "Accept"),
        )

    async def send(self, call: UpstreamCall) -> HttpAnswer:
        origin = self._origins[call.upstream]
        try:
            response = await self._session.post(
                origin.url(call),
                data=call.body,
                headers=_headers(origin, call),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=None,
                    sock_connect=origin.connect_s,
                    connect=None,
                    sock_read=origin.idle_s,
                ),
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise UpstreamUnreachable(type(error).__name__) from None
        except (TimeoutError, aiohttp.ServerTimeoutError) as error:
            raise UpstreamSilent(type(error).__name__) from None
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamBroke(type(error).__name__) from None
        return HttpAnswer(response)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()


class HttpAnswer:
    """Fulfils ports.upstream.UpstreamAnswer."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        headers = response.headers
        self._head = UpstreamHead(
            status=response.status,
            content_type=_plain(headers.get("Content-Type")) or "application/json",
            retry_after=_plain(headers.get("Retry-After")),
            upstream_id=_plain(headers.get("x-request-id")),
            relayed=tuple(
                (name, value) for name in _RELAYED if (value := _plain(headers.get(name)))
            ),
        )

    @property
    def head(self) -> UpstreamHead:
        return self._head

    async def read(self) -> bytes:
        body = bytearray()
        async for data in self.chunks():
            body += data
            if len(body) > BODY_BYTES_MAX:
                raise UpstreamBroke("the answer is larger than 64 MiB")
        return bytes(body)

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            async for data in self._response.content.iter_any():
                yield data
        except (TimeoutError, aiohttp.ServerTimeoutError) as error:
            raise UpstreamSilent(type(error).__name__) from None
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamBroke(type(error).__name__) from None

    async def close(self) -> None:
        # A body read to its end gives its connection back by itself; any other is dropped.
        self._response.close()


def _headers(origin: Origin, call: UpstreamCall) -> dict[str, str]:
    headers = {
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
        # OpenAI keeps a caller's id beside its own: https://platform.openai.com/docs/api-reference
        # (debugging requests); it is the id of our ledger row.
        "X-Client-Request-Id": call.rid,
    }
    if origin.api_key and origin.auth == "bearer":
        headers["Authorization"] = f"Bearer {origin.api_key}"
    elif origin.api_key:
        headers["api-key"] = origin.api_key
    if origin.user_header:
        headers[origin.user_header] = call.user_id
    return headers


def _plain(value: str | None) -> str | None:
    """A header as it may be stored and relayed: short, printable, or not at all."""
    return (
        value if value and len(value) <= 200 and value.isascii() and value.isprintable() else None
    )
