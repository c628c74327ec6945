"""The clients: they call without pause, take what they get, and write down what that was.

Each draws its calls from the run's seed: streams and whole answers, long and short, some left in
the middle, for users with small and with large allowances. Each answer must echo the nonce of its
call, because the schema that the call demands holds it.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from string import ascii_lowercase
from typing import Any

import aiohttp

from gateway.adapters.tokenizer.bpe import BpeTokenizer
from gateway.ports.tasks import spawn
from tests.chaos.gateways import Gateway
from tests.chaos.records import ClientCall
from tests.gateway.running_gateway import MODEL

CLIENTS = 30
_CALL_S = 60.0
_PAUSE_S, _REFUSED_PAUSE_S = (0.0, 0.1), 0.15
_NONCE_LETTERS = 12
_ECHO = re.compile(r'"n":"([a-z]+)"')
_GONE = (aiohttp.ClientError, OSError, TimeoutError)


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who calls."""

    user_id: str
    key: str


@dataclass(frozen=True, slots=True)
class Plan:
    """One call as it was drawn. The client leaves after so many chunks, or seconds."""

    nonce: str
    body: bytes
    stream: bool
    leave_chunks: int | None = None
    leave_s: float | None = None


def drawn(chance: Random) -> Plan:
    """The next call of a client."""
    nonce = "".join(chance.choices(ascii_lowercase, k=_NONCE_LETTERS))
    stream, leaves = chance.random() < 0.65, chance.random() < 0.15
    if stream:
        write, chunk_ms = chance.choice((40, 80, 160, 320)), chance.choice((1, 5, 20, 50))
        if chance.random() < 0.15:  # longer than a lease
            write, chunk_ms = 640, 50
        orders = f"write={write} chunk_ms={chunk_ms}"
        if chance.random() < 0.05:
            orders += f" cut_after={chance.randrange(1, 12)}"
    else:
        write = chance.randrange(20, 200)
        orders = f"write={write} delay_ms={chance.choice((0, 0, 50, 300, 1500))}"
    schema = {"type": "object", "properties": {"n": {"const": nonce}, "t": {"type": "string"}}}
    body: dict[str, Any] = {
        "model": MODEL,
        "stream": stream,
        "max_tokens": write + chance.choice((60, 60, 60, -10)),
        "messages": [{"role": "user", "content": f"{nonce}\n@stand-in {orders}"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
    }
    return Plan(
        nonce,
        json.dumps(body).encode(),
        stream,
        chance.randrange(0, 20) if leaves and stream else None,
        chance.uniform(0.02, 0.5) if leaves and not stream else None,
    )


class Clients:
    """All of them. `calls` is what they saw, in the order in which the calls began."""

    def __init__(self, gateways: Sequence[Gateway], users: Sequence[User], seed: int) -> None:
        self.calls: list[ClientCall] = []
        self._gateways, self._users, self._seed = gateways, users, seed
        self._stop = asyncio.Event()
        self._running: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession

    async def start(self) -> None:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        timeout = aiohttp.ClientTimeout(total=_CALL_S)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        for number in range(CLIENTS):
            chance = Random(f"{self._seed}/{number}")
            self._running.append(spawn(self._live(chance), f"client {number}", awaited=True))

    def stop(self) -> None:
        """Begin no more calls."""
        self._stop.set()

    async def ended(self) -> None:
        """Returns when every call has ended that has begun."""
        await asyncio.gather(*self._running)

    def count(self) -> None:
        """Count what arrived. Afterwards: it would hold up the links, which share this process."""
        tokenizer = BpeTokenizer()
        for call in self.calls:
            call.output_tokens = tokenizer.count(call.text, "o200k_base") if call.text else 0

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)
            await self._session.close()

    async def each_is_answered(self, wait_s: float) -> list[str]:
        """After the faults every user is answered, or refused for quota, within `wait_s`; the
        users who were not. It also brings back every account that Redis lost, so an answer that
        Redis was not asked for does not count."""
        deadline_s = time.monotonic() + wait_s

        async def answered(user: User) -> str:
            chance = Random(f"{self._seed}/{user.user_id}")
            while True:
                call = await self._call(drawn(chance), user, chance.choice(self._gateways))
                if call.status in (200, 429) and call.decision != "outage":
                    return ""
                if time.monotonic() > deadline_s:
                    return f"{user.user_id}: {call.status} {call.code or call.decision}"
                await asyncio.sleep(_REFUSED_PAUSE_S)

        told = await asyncio.gather(*(answered(user) for user in self._users))
        return [each for each in told if each]

    async def _live(self, chance: Random) -> None:
        while not self._stop.is_set():
            plan, user = drawn(chance), chance.choice(self._users)
            call = await self._call(plan, user, chance.choice(self._gateways))
            pause_s = chance.uniform(*_PAUSE_S)
            await asyncio.sleep(pause_s if call.status == 200 else _REFUSED_PAUSE_S)

    async def _call(self, plan: Plan, user: User, gateway: Gateway) -> ClientCall:
        call = ClientCall(
            plan.nonce, user.user_id, gateway.number, plan.stream, len(plan.body), time.time()
        )
        seen = _Seen()
        if gateway.proxy:
            self.calls.append(call)
            with suppress(*_GONE):
                await self._ask(plan, (user, gateway), call, seen)
        call.ended_s = time.time()
        call.text = "".join(seen.pieces)
        found = _ECHO.search(call.text)
        call.echoed = found[1] if found else None
        return call

    async def _ask(
        self, plan: Plan, ends: tuple[User, Gateway], call: ClientCall, seen: _Seen
    ) -> None:
        user, gateway = ends
        headers = {
            "Authorization": f"Bearer {user.key}",
            "Content-Type": "application/json",
            "x-quota-tag": plan.nonce,
        }
        url = f"{gateway.proxy}/v1/chat/completions"
        patience = aiohttp.ClientTimeout(total=plan.leave_s or _CALL_S)
        call.left = plan.leave_s is not None  # unless it is answered sooner
        async with self._session.post(
            url, data=plan.body, headers=headers, timeout=patience
        ) as response:
            call.status = response.status
            call.rid = response.headers.get("x-request-id", "")
            call.decision = response.headers.get("x-quota-decision", "")
            if response.status == 200 and plan.stream:
                async for line in response.content:
                    if plan.leave_chunks is not None and len(seen.pieces) >= plan.leave_chunks:
                        call.left = True
                        response.close()
                        return
                    call.whole = seen.line(line) or call.whole
                return
            told = json.loads(await response.read())
            call.whole, call.left = True, False
            if response.status == 200:
                seen.pieces.append(told["choices"][0]["message"]["content"])
            else:
                call.code = str(told["error"]["code"])


@dataclass(slots=True)
class _Seen:
    """The text that has reached a client."""

    pieces: list[str] = field(default_factory=list)

    def line(self, line: bytes) -> bool:
        """Take in a line of a stream; True when it is the last."""
        if not line.startswith(b"data: "):
            return False
        data = line.removeprefix(b"data: ").strip()
        if data == b"[DONE]":
            return True
        for choice in json.loads(data).get("choices") or ():
            self.pieces.append(choice["delta"].get("content") or "")
        return False
