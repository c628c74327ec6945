"""Hundreds of clients at once against several gateways, each with a connection of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.gateway.running_gateway import RunningGateway

_WAIT_S = 60.0


@dataclass
class Answer:
    """One client's answer; `text_tokens` of a stream is what reached it, four a chunk."""

    status: int = 0
    code: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    text_tokens: int = 0


class Crowd:
    """Clients that start together and are told apart by their place in the list.

    They run on a loop in a thread of its own, so that a test can look on while they wait.
    """

    def __init__(
        self,
        gateways: Sequence[RunningGateway],
        calls: Sequence[tuple[str, Any]],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._headers = headers or {}
        self._gateways, self._calls = gateways, calls
        self.answers = [Answer() for _ in calls]
        self._pool = ThreadPoolExecutor(1)
        self._running = self._pool.submit(lambda: asyncio.run(self._run()))

    def done(self) -> list[Answer]:
        """Every client's answer, once all have one (or their gateway is gone)."""
        self._running.result(_WAIT_S)
        self._pool.shutdown()
        return self.answers

    def refused(self) -> int:
        """How many clients have been refused so far."""
        return sum(answer.status >= 400 for answer in self.answers)

    async def _run(self) -> None:
        barrier = asyncio.Barrier(len(self._calls))
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        timeout = aiohttp.ClientTimeout(total=_WAIT_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            await asyncio.gather(
                *(self._call(session, barrier, place) for place in range(len(self._calls)))
            )

    async def _call(
        self, session: aiohttp.ClientSession, barrier: asyncio.Barrier, place: int
    ) -> None:
        (key, body), answer = self._calls[place], self.answers[place]
        gateway = self._gateways[place % len(self._gateways)]
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        headers.update(self._headers)
        await barrier.wait()
        try:
            async with session.post(
                f"{gateway.proxy}/v1/chat/completions", data=json.dumps(body), headers=headers
            ) as response:
                answer.headers = {name.lower(): text for name, text in response.headers.items()}
                if response.status == 200 and body.get("stream"):
                    answer.status = 200
                    await self._read_stream(response, answer)
                    return
                told = json.loads(await response.read())
                answer.code = told["error"]["code"] if response.status >= 400 else ""
                answer.status = response.status
        except (aiohttp.ClientError, OSError):
            return  # the gateway is gone: what has come until now counts

    async def _read_stream(self, response: aiohttp.ClientResponse, answer: Answer) -> None:
        async for line in response.content:
            if line.startswith(b"data: {"):
                choices = json.loads(line.removeprefix(b"data: "))["choices"]
                if choices and choices[0]["delta"].get("content"):
                    answer.text_tokens += 4
