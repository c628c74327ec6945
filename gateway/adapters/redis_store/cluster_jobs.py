"""What the jobs read of a cluster: outbox, leases and accounts, node by node.

Each node is read as a single server is. A node that does not answer keeps its shards waiting and no
others: what is read is what the rest has, and that is told apart from what a server says that lost
something. Streams of two shards cannot be waited for in one command, even on one node (their slots
differ), so new events are looked for from time to time.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence

from redis.asyncio import Redis

from gateway.adapters.redis_store.calls import T
from gateway.adapters.redis_store.clients import open_client
from gateway.adapters.redis_store.leases import RedisLeases
from gateway.adapters.redis_store.nodes import Nodes
from gateway.adapters.redis_store.streams import RedisStreams
from gateway.adapters.redis_store.topology import Topology
from gateway.core.quota.settle import LapsedHold
from gateway.ports.outbox import OutboxEntry
from gateway.ports.quota_store import StoreUnavailable

# An idle look takes one short command a shard; an event waits half of this, on average.
_LOOK_EVERY_S = 0.1


class JobNode:
    """One node, as the jobs see it."""

    def __init__(self, client: Redis, shards: int) -> None:
        self.client = client
        self.streams = RedisStreams(client, shards)
        self.leases = RedisLeases(client, shards)

    async def aclose(self) -> None:
        await self.client.aclose()


class JobNodes(Nodes[JobNode]):
    """Each node with a client of its own, made when it is needed."""

    def __init__(self, topology: Topology, shards: int) -> None:
        super().__init__(topology, lambda url: JobNode(open_client(url), shards), JobNode.aclose)

    async def ask(self, shard: int, ask: Callable[[JobNode], Awaitable[T]]) -> T:
        """What the shard's node says; when it does not, perhaps another has taken its place."""
        try:
            return await ask(self.of(shard))
        except StoreUnavailable:
            self.topology.refresh_soon()
            raise


class ClusterStreams:
    """Fulfils ports.outbox.Outbox."""

    def __init__(self, nodes: JobNodes, shards: int) -> None:
        self._nodes = nodes
        self.shards = shards
        self._read: set[int] = set()  # the shards that answered last

    async def server_id(self) -> str:
        """Of all nodes that answer, and which shard each has: a node comes or goes, or a slot
        moves, and it is another. A node of which something was just read must answer."""
        topology = self._nodes.topology
        urls = topology.urls
        ids = await asyncio.gather(
            *(node.streams.server_id() for node in self._nodes.every()), return_exceptions=True
        )
        told = []
        missing = StoreUnavailable("no node of the cluster is known")
        for url, server_id in zip(urls, ids, strict=True):
            shards = topology.shards_of(url)
            if isinstance(server_id, str):
                told.append((server_id, *shards))
            elif not isinstance(server_id, StoreUnavailable) or self._read.intersection(shards):
                raise server_id
            else:
                missing = server_id
                topology.refresh_soon()
        if not told:
            raise missing
        return hashlib.sha256(repr(sorted(told)).encode()).hexdigest()[:40]

    async def read(
        self, cursors: dict[int, str], rows_max: int, wait_ms: int
    ) -> Sequence[OutboxEntry]:
        if not cursors:
            return []
        loop = asyncio.get_running_loop()
        until_s = loop.time() + wait_ms / 1000
        while True:
            found = await self._each(
                cursors, lambda node, at: node.streams.read(at, rows_max, wait_ms=0)
            )
            if found or loop.time() + _LOOK_EVERY_S > until_s:
                return found
            await asyncio.sleep(_LOOK_EVERY_S)

    async def at(self, cursors: dict[int, str]) -> Sequence[OutboxEntry]:
        return await self._each(cursors, lambda node, at: node.streams.at(at))

    async def backlog(self, shard: int, cursor: str) -> tuple[int, str | None]:
        return await self._nodes.ask(shard, lambda node: node.streams.backlog(shard, cursor))

    async def trim(self, shard: int, before_id: str, bytes_max: int, cursor: str) -> None:
        await self._nodes.ask(
            shard, lambda node: node.streams.trim(shard, before_id, bytes_max, cursor)
        )

    async def _each(
        self,
        cursors: dict[int, str],
        ask: Callable[[JobNode, dict[int, str]], Awaitable[Sequence[OutboxEntry]]],
    ) -> Sequence[OutboxEntry]:
        """What those shards have whose nodes answer; StoreUnavailable when none does."""

        async def one(shard: int) -> Sequence[OutboxEntry]:
            return await self._nodes.ask(shard, lambda node: ask(node, {shard: cursors[shard]}))

        replies = await asyncio.gather(*map(one, cursors), return_exceptions=True)
        self._read.clear()
        found: list[OutboxEntry] = []
        missing = None
        for shard, reply in zip(cursors, replies, strict=True):
            if not isinstance(reply, BaseException):
                self._read.add(shard)
                found.extend(reply)
            elif isinstance(reply, StoreUnavailable):
                missing = reply
            else:
                raise reply
        if missing is not None and not self._read:
            raise missing
        return found


class ClusterLeases:
    """Fulfils ports.quota_store.Leases."""

    def __init__(self, nodes: JobNodes, shards: int) -> None:
        self._nodes = nodes
        self.shards = shards

    async def lapsed(self, shard: int, grace_ms: int, rows_max: int) -> Sequence[LapsedHold]:
        return await self._nodes.ask(
            shard, lambda node: node.leases.lapsed(shard, grace_ms, rows_max)
        )

    async def count(self, shard: int) -> int:
        return await self._nodes.ask(shard, lambda node: node.leases.count(shard))

    async def accounts(self, position: int, rows_max: int) -> tuple[int, Sequence[tuple[str, int]]]:
        """Node after node: a position is that of a node's own scan, and which node it is."""
        nodes = self._nodes.every()
        if not nodes:
            raise StoreUnavailable("no node of the cluster is known")
        at, place = divmod(position, len(nodes))
        at, found = await nodes[place].leases.accounts(at, rows_max)
        if at:
            return at * len(nodes) + place, found
        return (place + 1) % len(nodes), found
