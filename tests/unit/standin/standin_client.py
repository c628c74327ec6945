"""A client of the stand-in, for its tests."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from gateway.standin import StandIn, StandInSettings

DEADLINE_S = 10.0


def count_words(text: str) -> int:
    """Words and punctuation marks: for the stand-in's own text exactly its tokens."""
    return len(re.findall(r"\w+|[^\w\s]", text))


def body(text: str = "hi", **parameters: Any) -> dict[str, Any]:
    """A chat request with one user message."""
    return {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": text}],
        **parameters,
    }


def prompt_of(text: str) -> int:
    """Tokens of `body(text)`: 3 for the message, 1 for its role, 3 for priming, and the text."""
    return 3 + 1 + 3 + count_words(text)


@dataclass(frozen=True, slots=True)
class Client:
    """Calls one stand-in; `url` ends in /v1."""

    url: str
    session: aiohttp.ClientSession

    def post(self, sent: Any, **headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.session.post(f"{self.url}/chat/completions", json=sent, headers=named)

    async def chat(self, sent: Any, **headers: str) -> dict[str, Any]:
        async with self.post(sent, **headers) as response:
            assert response.status == 200, await response.text()
            answer: dict[str, Any] = await response.json()
            return answer

    async def refused(self, sent: Any, **headers: str) -> tuple[int, dict[str, Any]]:
        async with self.post(sent, **headers) as response:
            return response.status, (await response.json())["error"]

    async def events(self, sent: dict[str, Any], **headers: str) -> list[str]:
        async with self.post({**sent, "stream": True}, **headers) as response:
            assert response.status == 200, await response.text()
            return data_of(await response.text())

    async def chunks(self, sent: dict[str, Any], **headers: str) -> list[dict[str, Any]]:
        *chunks, last = await self.events(sent, **headers)
        assert last == "[DONE]"
        return [json.loads(chunk) for chunk in chunks]

    async def wire(
        self, sent: dict[str, Any], request_id: str, path: str = "/v1/chat/completions"
    ) -> bytes:
        """Everything the stand-in sends on a fresh connection, whole answer or not."""
        address = URL(self.url)
        reader, writer = await asyncio.open_connection(address.host, address.port)
        payload = json.dumps(sent).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {address.authority}\r\n"
            f"X-Client-Request-Id: {request_id}\r\nContent-Length: {len(payload)}\r\n"
            "Connection: close\r\n\r\n"
        )
        writer.write(head.encode() + payload)
        received = await reader.read()
        writer.close()
        await writer.wait_closed()
        return received

    def post_to(self, path: str, sent: Any, **headers: str) -> Any:
        """`path` may be one under /v1, or one from the root."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        root = self.url.removesuffix("/v1") if path.startswith("/") else f"{self.url}/"
        return self.session.post(root + path, json=sent, headers=named)

    async def answer(self, path: str, sent: Any, **headers: str) -> dict[str, Any]:
        async with self.post_to(path, sent, **headers) as response:
            assert response.status == 200, await response.text()
            answer: dict[str, Any] = await response.json()
            return answer

    async def refusal(self, path: str, sent: Any, **headers: str) -> tuple[int, dict[str, Any]]:
        async with self.post_to(path, sent, **headers) as response:
            return response.status, (await response.json())["error"]

    async def stream(self, path: str, sent: dict[str, Any], **headers: str) -> str:
        async with self.post_to(path, {**sent, "stream": True}, **headers) as response:
            assert response.status == 200, await response.text()
            text: str = await response.text()
            return text

    async def hung_up(self, sent: bytes) -> None:
        """Send these bytes and close the connection once the stand-in has counted a request."""
        address = URL(self.url)
        _, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(sent)
        await until(lambda: self.ask("paths"))
        writer.close()
        await writer.wait_closed()

    async def ask(self, path: str, method: str = "GET") -> Any:
        address = self.url.removesuffix("/v1") + "/stand-in/" + path
        async with self.session.request(method, address) as response:
            assert response.status == 200
            return await response.json()

    async def call(self, request_id: str) -> dict[str, Any] | None:
        """The tally's entry of a call once it has ended; None while it runs."""
        call: dict[str, Any] = (await self.ask("served"))["calls"].get(request_id, {})
        return call if call.get("status") else None

    async def ended(self, request_id: str) -> dict[str, Any]:
        found: dict[str, Any] = await until(lambda: self.call(request_id))
        return found

    async def waits_at(self, gate: str) -> None:
        async def waiting() -> bool:
            return gate in await self.ask("waiting")

        await until(waiting)


def data_of(stream: str) -> list[str]:
    """The data of each event of a stream whose events have no name."""
    *events, rest = stream.split("\n\n")
    assert rest == ""
    assert all(event.startswith("data: ") for event in events)
    return [event.removeprefix("data: ") for event in events]


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    """What `condition` answers as soon as that is true; fails at the deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            if found := await condition():
                return found
            await asyncio.sleep(0.005)


@asynccontextmanager
async def running(settings: StandInSettings) -> AsyncIterator[Client]:
    """A client of a stand-in that really listens, on a free port, until the block is left."""
    stand_in = StandIn(settings)
    url = await stand_in.start()
    try:
        async with aiohttp.ClientSession() as session:
            yield Client(url, session)
    finally:
        await stand_in.stop()
