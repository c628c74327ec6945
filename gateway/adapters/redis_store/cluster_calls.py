"""Script calls to a cluster: each goes to the node that has its shard.

What travels, and how, is the business of the calls to each node. A node that has not run a call
because the shard is elsewhere, or on its way, says so; then the call is sent again, by the same
rid, within its deadline and no further. ASK is not followed: where a slot is on its way, a script
finds some of its keys on neither side (those that do not exist yet), which a cluster refuses on
both. The shard waits until it has arrived.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

from gateway.adapters.redis_store.calls import (
    Args,
    Calls,
    Elsewhere,
    Keys,
    Read,
    T,
    Translated,
)
from gateway.adapters.redis_store.deadline import Deadline
from gateway.adapters.redis_store.keys import KEYS_BEGIN, shard_of_key
from gateway.adapters.redis_store.nodes import Nodes
from gateway.adapters.redis_store.scripts import Script
from gateway.ports.quota_store import StoreUnavailable
from gateway.ports.tasks import spawn

# Before each repetition, where nobody has said which node to ask: in all, as long as the longest
# deadline that can be configured.
_PAUSES_S = (0.01, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56)

Node = TypeVar("Node")


class ClusterCalls(Generic[Node]):
    """Fulfils calls.Calls. `calls_of` finds them in what there is for a node."""

    def __init__(
        self, nodes: Nodes[Node], calls_of: Callable[[Node], Calls], deadline_s: float
    ) -> None:
        self._nodes = nodes
        self._calls_of = calls_of
        self._deadline_s = deadline_s

    async def run(
        self,
        script: Script,
        keys: Keys,
        args: Args,
        rid: str = "",
        read: Read[Any] | None = None,
    ) -> Any:
        return await self._routed(
            shard_of_key(keys[0]), lambda calls: calls.run(script, keys, args, rid, read)
        )

    async def send(
        self, script: Script, keys: Keys, args: Args, rid: str, read: Read[T]
    ) -> asyncio.Future[T]:
        shard, until_s = shard_of_key(keys[0]), self._until_s()

        def ask(calls: Calls) -> Awaitable[asyncio.Future[T]]:
            return calls.send(script, keys, args, rid, read)

        async def again(calls: Calls) -> T:
            return await (await ask(calls))

        async def answer(reply: asyncio.Future[T]) -> T:
            try:
                return await reply
            except StoreUnavailable as error:
                told: T = await self._after(error, shard, until_s, again)
                return told

        reply: asyncio.Future[T] = await self._routed(shard, ask)
        return spawn(answer(reply), f"{script.name} {rid}", awaited=True)

    async def command(self, *parts: str | bytes | int) -> Any:
        shard = _shard_of(parts)
        if shard is not None:
            return await self._routed(shard, lambda calls: calls.command(*parts))
        # What names no key is for every node. One that came later brings its scripts along by
        # itself, at the first call (NOSCRIPT).
        every = [self._calls_of(node).command(*parts) for node in self._nodes.every()]
        return (await asyncio.gather(*every))[0]

    async def commands(self, requests: Sequence[Args]) -> list[Any]:
        """Each request must name a key."""
        groups: dict[str | None, list[int]] = {}
        for place, parts in enumerate(requests):
            groups.setdefault(self._url_of(parts), []).append(place)
        told: list[Any] = [None] * len(requests)

        async def ask(places: list[int]) -> None:
            asked = [requests[place] for place in places]
            try:
                node = self._nodes.of(_shard_of(asked[0]) or 0)
                replies = await self._calls_of(node).commands(asked)
            except Elsewhere:
                alone = (self.command(*parts) for parts in asked)
                replies = await asyncio.gather(*alone, return_exceptions=True)
            except StoreUnavailable as error:
                self._nodes.topology.refresh_soon()
                replies = [error] * len(asked)
            for place, reply in zip(places, replies, strict=True):
                told[place] = reply

        await asyncio.gather(*(ask(places) for places in groups.values()))
        wrong = [each for each in told if isinstance(each, BaseException)]
        others = [each for each in wrong if not isinstance(each, StoreUnavailable)]
        if others or len(wrong) == len(told):
            raise (others or wrong)[0]
        return told

    async def aclose(self) -> None:
        await self._nodes.aclose()

    async def _routed(self, shard: int, ask: Callable[[Calls], Awaitable[Any]]) -> Any:
        until_s = self._until_s()
        try:
            return await ask(self._calls_of(self._nodes.of(shard)))
        except StoreUnavailable as error:
            return await self._after(error, shard, until_s, ask)

    async def _after(
        self,
        error: StoreUnavailable,
        shard: int,
        until_s: float,
        ask: Callable[[Calls], Awaitable[Any]],
    ) -> Any:
        """Ask again while nothing was run; `error` was the first answer."""
        topology = self._nodes.topology
        if not isinstance(error, Elsewhere):
            topology.refresh_soon()  # perhaps another has taken its place
            raise error
        loop = asyncio.get_running_loop()
        with Translated(), Deadline(until_s):
            for pause_s in _PAUSES_S:
                if error.moved_to is not None:
                    topology.moved(shard, *error.moved_to)
                elif loop.time() + pause_s >= until_s:
                    break
                else:
                    topology.refresh_soon()
                    await asyncio.sleep(pause_s)
                try:
                    return await ask(self._calls_of(self._nodes.of(shard)))
                except Elsewhere as again:
                    error = again
        raise error

    def _until_s(self) -> float:
        return asyncio.get_running_loop().time() + self._deadline_s

    def _url_of(self, parts: Args) -> str | None:
        try:
            return self._nodes.topology.url_of(_shard_of(parts) or 0)
        except Elsewhere:
            return None


def _shard_of(parts: Args) -> int | None:
    """The shard of the first key among a command's parts."""
    for part in parts:
        if isinstance(part, str) and part.startswith(KEYS_BEGIN):
            return shard_of_key(part)
    return None
