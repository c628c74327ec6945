"""One chat completion through the gateway, streamed or not, read to its end.

A plain client, because an SDK costs more than the gateway it would measure and tries again by
itself. An answer is either whole or it failed; what its tokens were for is not known here.
"""

from __future__ import annotations

from types import TracebackType
from typing import Final

import aiohttp
import msgspec

from gateway.core.inference.chat_answer import read_chunk, read_completion
from gateway.core.usage import Usage

TAG: Final = "replay"
"""What the ledger says in the column `tag` of every call of a replay."""

_CONNECT_S = 5.0
_SILENCE_S = 180.0  # longer than a gateway waits for its upstream
# The last events of a stream (usage, end) take about 700 bytes; text before them is passed over.
_TAIL_BYTES = 4096
_UNAVAILABLE = 503  # the gateway stops, starts, or has lost its stores: it asks to come again


class Failed(Exception):
    """No whole answer came, for a reason that may pass; the text says which."""


class Reply(msgspec.Struct, frozen=True):
    """A whole answer. `refusal` is its error's code, None when the call was admitted.

    `usage` is None when the answer does not tell it, as most streams do not.
    """

    refusal: str | None = None
    usage: Usage | None = None
    lowered: bool = False


class _Error(msgspec.Struct):
    code: str | None = None
    type: str | None = None


class _ErrorBody(msgspec.Struct):
    error: _Error


class GatewayClient:
    """Connections to one gateway, at most `connections` at a time. An async context manager."""

    def __init__(self, gateway: str, connections: int) -> None:
        self._gateway = gateway
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=_CONNECT_S, sock_read=_SILENCE_S
            ),
        )

    async def __aenter__(self) -> GatewayClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def status(self, key: str) -> int:
        """How a call that costs nothing is answered. Failed when nobody answers."""
        try:
            async with self._session.get(f"{self._gateway}/v1/models", headers=_sender(key)) as got:
                return got.status
        except (aiohttp.ClientError, OSError) as error:
            raise Failed(_named(error)) from error

    async def chat(self, key: str, body: bytes) -> Reply:
        """Send one request once. Failed when no whole answer comes."""
        headers = {**_sender(key), "Content-Type": "application/json", "x-quota-tag": TAG}
        url = f"{self._gateway}/v1/chat/completions"
        try:
            async with self._session.post(url, data=body, headers=headers) as answer:
                return await _read(answer)
        except (aiohttp.ClientError, OSError) as error:  # a timeout is an OSError
            raise Failed(_named(error)) from error


async def _read(answer: aiohttp.ClientResponse) -> Reply:
    if answer.status >= 400:
        code = _code(answer.status, await answer.read())
        if answer.status == _UNAVAILABLE:
            raise Failed(code)
        return Reply(refusal=code)
    if answer.content_type == "text/event-stream":
        usage = await _streamed_usage(answer)
    else:
        usage = read_completion(await answer.read()).usage
    return Reply(usage=usage, lowered="x-quota-output-cap-tokens" in answer.headers)


async def _streamed_usage(answer: aiohttp.ClientResponse) -> Usage | None:
    """The usage at the end of a stream, if it has one; Failed when the stream has no end."""
    tail = b""
    async for data in answer.content.iter_any():
        tail = (tail + data)[-_TAIL_BYTES:]
    events = [line[6:] for line in tail.split(b"\n") if line.startswith(b"data: ")]
    chunks = [read_chunk(event) for event in events]
    if not chunks or not chunks[-1].is_done:
        raise Failed("a stream broke off")
    return next((chunk.usage for chunk in reversed(chunks) if chunk.wire_usage), None)


def _code(status: int, raw: bytes) -> str:
    try:
        error = msgspec.json.decode(raw, type=_ErrorBody).error
    except msgspec.DecodeError:
        return f"status {status}"
    return error.code or error.type or f"status {status}"


def _sender(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _named(error: Exception) -> str:
    return str(error) or type(error).__name__
