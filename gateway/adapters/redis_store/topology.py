"""Which node of a Redis Cluster has each shard, as the cluster itself tells.

The keys of a shard share a slot, so a shard lies wholly on one node. Nothing here is certain: slots
move and nodes fail, and only the node that answers a call knows. It promises to learn again when it
is told that it was wrong, once for all who ask at the same moment. Replicas are never named.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from redis.cluster import parse_cluster_slots
from redis.crc import key_slot

from gateway.adapters.redis_store.calls import Elsewhere
from gateway.adapters.redis_store.clients import asked, open_client
from gateway.adapters.redis_store.keys import shard_keys
from gateway.adapters.redis_store.urls import node_url, node_urls
from gateway.ports.quota_store import StoreUnavailable
from gateway.ports.tasks import spawn

_NODE_S = 1.0  # a node that has not told by then is left out
# Between two looks that nobody waits for. A failover takes seconds, and a node that is moved to
# has already been named by the node that had the slot.
_REST_S = 0.25


class Topology:
    """The map of one cluster. To be refreshed before it is first asked."""

    def __init__(self, url: str, shards: int) -> None:
        self._url = url
        self._seeds = node_urls(url)
        self._slots = [key_slot(shard_keys(shard).meta.encode()) for shard in range(shards)]
        self._nodes: tuple[str | None, ...] = (None,) * shards
        self._told: list[Callable[[], None]] = []
        self._looking: asyncio.Task[None] | None = None
        self._resting: asyncio.Task[None] | None = None
        self._looks: set[asyncio.Task[tuple[str | None, ...]]] = set()
        self._is_closed = False

    def url_of(self, shard: int) -> str:
        """The node that has the shard, as an ordinary URL; Elsewhere when none is known."""
        url = self._nodes[shard]
        if url is None:
            raise Elsewhere(f"no node of the cluster has shard {shard}")
        return url

    def shards_of(self, url: str) -> Sequence[int]:
        """The shards this node has."""
        return [shard for shard, node in enumerate(self._nodes) if node == url]

    @property
    def urls(self) -> Sequence[str]:
        """Every node that has a shard, each once, in the order of their first shards."""
        return list(dict.fromkeys(url for url in self._nodes if url is not None))

    def on_change(self, told: Callable[[], None]) -> None:
        """Call this whenever a shard has come to another node."""
        self._told.append(told)

    def moved(self, shard: int, host: str, port: int) -> None:
        """The node that had the shard says which has it now."""
        nodes = list(self._nodes)
        nodes[shard] = node_url(self._url, host, port)
        self._adopt(tuple(nodes))
        self.refresh_soon()

    async def refresh(self) -> None:
        """Ask the cluster; StoreUnavailable when no node tells."""
        if self._looking is None:
            self._looking = spawn(self._look(), "look at the cluster", awaited=True)
            self._looking.add_done_callback(self._looked)
        await asyncio.shield(self._looking)

    def refresh_soon(self) -> None:
        """Ask the cluster a moment from now, without waiting for it."""
        if self._resting is None and not self._is_closed:
            self._resting = spawn(self._look_later(), "look at the cluster later")

    async def aclose(self) -> None:
        """Look no more."""
        self._is_closed = True
        running = [task for task in (self._looking, self._resting) if task is not None]
        for task in running:
            task.cancel()
        # Those that ask nodes are waited for: redis-py loses a connection that is cancelled while
        # it is made.
        if running or self._looks:
            await asyncio.wait([*running, *self._looks])

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._looking = None
        if not task.cancelled():
            task.exception()  # seen, even where nobody waits for it any more

    async def _look_later(self) -> None:
        try:
            await asyncio.sleep(_REST_S)
            await self.refresh()
        except StoreUnavailable:
            pass  # the next call that fails asks again
        finally:
            self._resting = None

    async def _look(self) -> None:
        """Take what most nodes say: one that was cut off from the others tells of the past."""
        asked_nodes = list(dict.fromkeys((*self.urls, *self._seeds)))
        random.shuffle(asked_nodes)
        looks = [self._asking(url) for url in asked_nodes]
        said: Counter[tuple[str | None, ...]] = Counter()
        error = StoreUnavailable("the URL names no node")
        for each in asyncio.as_completed(looks):
            try:
                said[await each] += 1
            except StoreUnavailable as failed:
                error = failed
            if said and said.most_common(1)[0][1] * 2 > len(asked_nodes):
                break  # the others end by themselves, within a second
        if not said:
            raise StoreUnavailable(f"no node of the cluster tells its slots: {error}") from error
        self._adopt(said.most_common(1)[0][0])

    def _asking(self, url: str) -> asyncio.Task[tuple[str | None, ...]]:
        look = spawn(self._map_of(url), "ask a node", awaited=True)
        self._looks.add(look)
        look.add_done_callback(self._looks.discard)
        return look

    async def _map_of(self, url: str) -> tuple[str | None, ...]:
        """The node of each shard, as this node sees it."""
        client: Any = open_client(url, _NODE_S)  # redis-py leaves parts of it untyped
        try:
            async with asyncio.timeout(_NODE_S):
                reply = await asked("CLUSTER SLOTS", client.execute_command("CLUSTER SLOTS"))
        except TimeoutError as error:
            raise StoreUnavailable("CLUSTER SLOTS: no reply in time") from error
        finally:
            await client.aclose()
        host = client.connection_pool.connection_kwargs["host"]
        ranges: dict[tuple[int, int], Any] = parse_cluster_slots(reply, current_host=host)
        return tuple(self._owner(slot, ranges) for slot in self._slots)

    def _owner(self, slot: int, ranges: dict[tuple[int, int], Any]) -> str | None:
        for (first, last), nodes in ranges.items():
            if first <= slot <= last:
                return node_url(self._url, *nodes["primary"])
        return None

    def _adopt(self, nodes: tuple[str | None, ...]) -> None:
        if nodes != self._nodes:
            self._nodes = nodes
            for told in self._told:
                told()
