"""A streamed answer: its events in order, and the faults a directive puts between them.

`Served` is kept true after every event, so whoever looks at it when the client has left sees what
went onto the wire. This module writes to a prepared response; it does not end it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import count

from aiohttp import web

from gateway.standin.ask import ChatAsk
from gateway.standin.gates import Gates
from gateway.standin.tally import Served
from gateway.standin.wire import DONE, STREAM_ERROR, Answer
from gateway.standin.writing import text


class Cut(Exception):
    """A directive wants the connection dropped here."""


class StreamedAnswer:
    """Writes one stream; made for one call."""

    def __init__(self, ask: ChatAsk, answer: Answer, gates: Gates, served: Served) -> None:
        self._ask = ask
        self._answer = answer
        self._gates = gates
        self._served = served
        self._chunks_sent = 0

    async def send(self, response: web.StreamResponse, chunk_tokens: int) -> None:
        """Write all events; raises Cut when told to drop the connection."""
        self._served.prompt_tokens = self._ask.prompt_tokens
        for index in range(self._ask.choices):
            await response.write(self._answer.role(index))
        for index, start, tokens in self._steps(chunk_tokens):
            await self._hold_or_cut()
            if self._error_due():
                break
            await response.write(self._answer.content(index, text(start, tokens)))
            self._served.completion_tokens += tokens
            self._chunks_sent += 1
            # A pause of 0 lets other calls run: a write alone hardly ever yields to the loop.
            await asyncio.sleep(self._ask.directives.chunk_ms / 1000)
        else:
            await self._hold_or_cut()
        if self._error_due():
            await response.write(STREAM_ERROR)
        else:
            await self._close(response)

    def _steps(self, chunk_tokens: int) -> Iterator[tuple[int, int, int]]:
        """Choice, first token and number of tokens of each chunk; the choices take turns."""
        end = self._ask.write_tokens
        starts = count(0, chunk_tokens) if self._ask.endless else range(0, end, chunk_tokens)
        for start in starts:
            tokens = chunk_tokens if self._ask.endless else min(chunk_tokens, end - start)
            for index in range(self._ask.choices):
                yield index, start, tokens

    async def _hold_or_cut(self) -> None:
        orders = self._ask.directives
        if orders.hold is not None and orders.hold_after == self._chunks_sent:
            await self._gates.wait(orders.hold)
        if orders.cut_after == self._chunks_sent:
            raise Cut

    def _error_due(self) -> bool:
        return self._ask.directives.error_after == self._chunks_sent

    async def _close(self, response: web.StreamResponse) -> None:
        for index in range(self._ask.choices):
            await response.write(self._answer.finish(index))
        usage = self._answer.usage()
        if usage:
            await response.write(usage)
            if self._ask.usage_readable:
                self._served.report(self._ask.usage)
        await response.write(DONE)
        self._served.finished = True
