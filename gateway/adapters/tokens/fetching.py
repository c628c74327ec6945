"""Fetching a key set: one GET on the loop, of bounded time and size, that is sent nowhere else.

An answer that points to another address is refused, as RFC 8725 (section 3.10) asks for addresses
that decide whom to trust; so is one that is compressed, since its size says nothing.
"""

from __future__ import annotations

import aiohttp

from gateway.adapters.tokens.remote_keys import KeysNotFetched

_BYTES_MAX = 256 * 1024
_FETCH_S = 5.0
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}


async def fetch_keys(url: str) -> bytes:
    """The bytes at the address; KeysNotFetched. Through the environment's proxy, if any, and over a
    connection of its own: the next time is minutes away."""
    try:
        async with (
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=_FETCH_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=_HEADERS,
                auto_decompress=False,
                trust_env=True,
            ) as session,
            session.get(url, allow_redirects=False) as answer,
        ):
            if answer.status != 200:
                raise KeysNotFetched(f"answered {answer.status}")
            if answer.headers.get("Content-Encoding", "identity") != "identity":
                raise KeysNotFetched("answered with compressed bytes")
            return await _read(answer.content)
    except TimeoutError:
        raise KeysNotFetched(f"did not answer in {_FETCH_S:g} s") from None
    except (aiohttp.ClientError, OSError) as error:
        raise KeysNotFetched(f"cannot be reached ({type(error).__name__})") from error


async def _read(content: aiohttp.StreamReader) -> bytes:
    body = bytearray()
    async for part in content.iter_any():
        body += part
        if len(body) > _BYTES_MAX:
            raise KeysNotFetched(f"answered with more than {_BYTES_MAX} bytes")
    return bytes(body)
