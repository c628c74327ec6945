"""What a gateway has for each node of a cluster: made when it is first needed.

Once a node has no shard any more, what is kept for it is forgotten at once and closed a little
later, when what was under way has its answers. So a node that comes back is a new one to
everybody, and is compared again before it is talked to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from gateway.adapters.redis_store.calls import Closed
from gateway.adapters.redis_store.topology import Topology
from gateway.ports.tasks import spawn

_LINGER_S = 1.0  # beyond any usual deadline of a call

T = TypeVar("T")


class Nodes(Generic[T]):
    """One `T` for each node, by the shards it has."""

    def __init__(
        self, topology: Topology, make: Callable[[str], T], close: Callable[[T], Awaitable[None]]
    ) -> None:
        self.topology = topology
        self._make = make
        self._close = close
        self._made: dict[str, T] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._is_closed = False
        topology.on_change(self._let_go)

    def of(self, shard: int) -> T:
        """What there is for the node that has this shard; Elsewhere when none is known."""
        url = self.topology.url_of(shard)
        return self._made[url] if url in self._made else self._of_url(url)

    def every(self) -> Sequence[T]:
        """What there is for each node that has shards, in a fixed order."""
        return [self._of_url(url) for url in self.topology.urls]

    async def aclose(self) -> None:
        """Close all, also what was let go a moment ago."""
        self._is_closed = True
        closing = list(self._closing)
        for task in closing:
            task.cancel()
        made, self._made = list(self._made.values()), {}
        await asyncio.gather(
            *closing, *(self._close(each) for each in made), return_exceptions=True
        )

    def _of_url(self, url: str) -> T:
        if self._is_closed:
            raise Closed
        if url not in self._made:
            self._made[url] = self._make(url)
        return self._made[url]

    def _let_go(self) -> None:
        for url in set(self._made).difference(self.topology.urls):
            task = spawn(self._close_later(self._made.pop(url)), "close a node")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _close_later(self, each: T) -> None:
        try:
            await asyncio.sleep(_LINGER_S)
        finally:
            await self._close(each)
