"""Messages to somebody's server by HTTP (aiohttp's client), one address each.

Promises that no redirect is followed, that an answer is waited for and read within bounds, and that
its status has the name of what follows from it. An address is the operator's own configuration, so
it may be one of this network; nothing that a user wrote comes into it. What answers is not kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from urllib.parse import urlsplit

import aiohttp

from gateway.ports.carrying import CarrierAway, NotNow, Undeliverable

_ATTEMPT_S, _CONNECT_S = 15.0, 5.0
_ANSWER_BYTES_MAX = 65_536
# Whoever is told these may take the next message: it is this one that failed.
_THIS_ONE = (408, 500, 501)
_TOO_MANY, _FROM_SERVER, _FROM_REDIRECT = 429, 500, 300


def shown(url: str) -> str:
    """The host, and a digest that tells addresses of one host apart: paths may be secret."""
    return f"{urlsplit(url).hostname}#{hashlib.sha256(url.encode()).hexdigest()[:8]}"


class HttpHook:
    """Fulfils the port `Hook`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.name = shown(url)
        self._session: aiohttp.ClientSession | None = None

    async def post(self, headers: Mapping[str, str], body: bytes) -> None:
        session = self._open()
        try:
            async with session.post(
                self._url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                status = answer.status
                await answer.content.read(_ANSWER_BYTES_MAX)
        except TimeoutError:
            raise CarrierAway(f"{self.name} did not answer within {_ATTEMPT_S:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Its words may hold the address.
            raise CarrierAway(f"{self.name} cannot be reached ({type(error).__name__})") from None
        self._judge(status)

    async def rest(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=_ATTEMPT_S, sock_connect=_CONNECT_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"user-agent": "quota-gateway"},
                auto_decompress=False,
                trust_env=True,
            )
        return self._session

    def _judge(self, status: int) -> None:
        said = f"{self.name} answered {status}"
        if status < _FROM_REDIRECT:
            return
        if status in _THIS_ONE:
            raise NotNow(said)
        if status >= _FROM_SERVER or status == _TOO_MANY:
            raise CarrierAway(said)
        if status < 400:
            raise Undeliverable(f"{said}: redirects are not followed, write the new address")
        raise Undeliverable(said)
