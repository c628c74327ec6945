"""A whole replay: row after row, at its time, by its user, until each has its answer.

A request that fails (the gateway was killed, or is starting) is sent again as a new request until
the gateway answers, so a replay outlives a restart. It keeps no row longer than it takes to answer
it, and knows nothing of stores: what the gateway booked is compared elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from gateway.core.json_body import encode
from gateway.ports.tasks import spawn
from gateway.replay.client import Failed, GatewayClient, Reply
from gateway.replay.counts import TierCounts
from gateway.replay.draw import Draw, Drawn
from gateway.replay.pace import Pace
from gateway.replay.prompt import PromptWriter, message
from gateway.replay.trace import Row

_AGAIN_S = 0.25  # a restart takes a second or two


@dataclass(frozen=True, slots=True)
class ReplayUser:
    """One user of the replay, and the key to call with."""

    user_id: str
    tier: str
    key: str


@dataclass(frozen=True, slots=True)
class Part:
    """What is sent: by whom, drawn how, in which words, to which model."""

    users: Sequence[ReplayUser]
    draw: Draw
    prompts: PromptWriter
    model: str


@dataclass(frozen=True, slots=True)
class _Ask:
    at_s: float
    user: ReplayUser
    body: bytes


class Replay:
    """One run. `counts` are true at any moment; `gone` says why it ended before the trace did."""

    def __init__(self, part: Part, client: GatewayClient, pace: Pace, patience_s: float) -> None:
        """`patience_s`: how long to wait for a gateway that does not answer."""
        self._part = part
        self._client = client
        self._pace = pace
        self._patience_s = patience_s
        self.gone: str | None = None
        self.counts: dict[str, TierCounts] = {}
        for user in part.users:
            self.counts.setdefault(user.tier, TierCounts(users=0)).users += 1

    async def run(
        self, rows: Iterable[Row], concurrency: int, answered: Callable[[], None]
    ) -> None:
        """Send all rows, at most `concurrency` at a time; `answered` is called after each."""
        asks = self._asks(rows)
        tasks = [
            spawn(self._send(asks, answered), f"sender {number}", awaited=True)
            for number in range(concurrency)
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    def _asks(self, rows: Iterable[Row]) -> Iterator[_Ask]:
        """All senders take from here, so rows are drawn and begun in their order."""
        part = self._part
        for row in rows:
            drawn = part.draw.next()
            text = part.prompts.write(row.context_tokens, row.generated_tokens)
            yield _Ask(row.at_s, part.users[drawn.user], _body(part.model, text, drawn))

    async def _send(self, asks: Iterator[_Ask], answered: Callable[[], None]) -> None:
        for ask in asks:
            await self._pace.due(ask.at_s)
            counts = self.counts[ask.user.tier]
            counts.requests += 1
            reply = await self._persist(ask, counts)
            if reply is None:
                return
            counts.add(reply)
            answered()

    async def _persist(self, ask: _Ask, counts: TierCounts) -> Reply | None:
        """The answer, asked for until there is one; None when the gateway is gone for good."""
        failed_s: float | None = None
        while self.gone is None:
            try:
                return await self._client.chat(ask.user.key, ask.body)
            except Failed as failure:
                now_s = asyncio.get_running_loop().time()
                if failed_s is None:
                    failed_s = now_s
                    counts.failed += 1
                if now_s - failed_s > self._patience_s:
                    self.gone = str(failure)
            await asyncio.sleep(_AGAIN_S)
        return None


def _body(model: str, text: str, drawn: Drawn) -> bytes:
    body: dict[str, object] = {"model": model, "messages": [message(text)]}
    if drawn.stream:
        body["stream"] = True
    if drawn.asks_usage:
        body["stream_options"] = {"include_usage": True}
    return encode(body)
