"""A streamed answer: its events in order, and the faults a directive puts between them.

`Served` is kept true after every event, so whoever looks at it when the client has left sees what
went onto the wire. This module writes to a prepared response; it does not end it.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from gateway.standin.directives import Directives
from gateway.standin.gates import Gates
from gateway.standin.reply import Events
from gateway.standin.tally import Served
from gateway.standin.usage import Report


class Cut(Exception):
    """A directive wants the connection dropped here."""


class StreamedAnswer:
    """Writes one stream; made for one call. `comment` goes out before each chunk."""

    def __init__(
        self, events: Events, orders: Directives, gates: Gates, comment: bytes = b""
    ) -> None:
        self._events = events
        self._orders = orders
        self._gates = gates
        self._comment = comment
        self._chunks_sent = 0

    async def send(
        self, response: web.StreamResponse, chunk_tokens: int, report: Report, served: Served
    ) -> None:
        """Write all events; raises Cut when told to drop the connection.

        Thoughts count as served from the start, although nobody sees them.
        """
        await response.write(self._comment + self._events.opening())
        chunks = self._events.chunks(chunk_tokens)
        while not await self._stops_here():
            chunk = next(chunks, None)
            if chunk is None:
                await response.write(self._events.closing())
                if self._events.tells_usage and report.readable:
                    served.report(report.told)
                served.finished = True
                return
            written, tokens = chunk
            await response.write(self._comment + written)
            served.completion_tokens += tokens
            self._chunks_sent += 1
            # A pause of 0 lets other calls run: a write alone hardly ever yields to the loop.
            await asyncio.sleep(self._orders.chunk_ms / 1000)
        await response.write(self._events.broken())

    async def _stops_here(self) -> bool:
        """Hold or cut when that is due; whether the stream shall break off."""
        orders = self._orders
        if orders.hold is not None and orders.hold_after == self._chunks_sent:
            await self._gates.wait(orders.hold)
        if orders.cut_after == self._chunks_sent:
            raise Cut
        return self._chunks_sent in (orders.error_after, orders.fail_after)
