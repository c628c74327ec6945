"""Redis, opened, whatever stands behind the URL: one server, Sentinels and a master, or a cluster.

Each server has its own watch and its own breaker, so what one of them lost is compared for its
shards only, and one that does not answer keeps no other waiting. With one server, or a master,
calls go to it without a layer in between. Who compares is not known here.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from gateway.adapters.clock import SystemClock
from gateway.adapters.redis_store.breaker import Breaker, Chances
from gateway.adapters.redis_store.calls import Calls, open_connections
from gateway.adapters.redis_store.checks import check_server
from gateway.adapters.redis_store.clients import open_client
from gateway.adapters.redis_store.cluster_calls import ClusterCalls
from gateway.adapters.redis_store.cluster_jobs import ClusterLeases, ClusterStreams, JobNodes
from gateway.adapters.redis_store.fast_calls import FastCalls
from gateway.adapters.redis_store.leases import RedisLeases
from gateway.adapters.redis_store.nodes import Nodes
from gateway.adapters.redis_store.plain_calls import PlainCalls
from gateway.adapters.redis_store.server_watch import ServerWatch
from gateway.adapters.redis_store.streams import RedisStreams
from gateway.adapters.redis_store.topology import Topology
from gateway.adapters.redis_store.urls import is_cluster
from gateway.ports.ledger import LedgerUnavailable
from gateway.ports.metrics import Metrics
from gateway.ports.quota_store import StoreUnavailable
from gateway.ports.tasks import spawn

_PATIENT_S = 5.0
_EXAMINE_PAUSE_S = 0.5
_log = logging.getLogger("gateway.redis")

Compare = Callable[[Sequence[int]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class RedisTerms:
    """Where Redis is, by which client calls go there, and how long the traffic's may take."""

    url: str
    client: str
    shards: int
    deadline_s: float


@dataclass(frozen=True, slots=True)
class RedisParts:
    """`calls` are the traffic's, and `unguarded` the same past the breaker. `direct` are those of
    who compares: over connections of their own, which need nobody's acceptance. All of `when_back`
    are called when a server that did not answer is back."""

    calls: Calls
    unguarded: Calls
    direct: Calls
    streams: RedisStreams | ClusterStreams
    leases: RedisLeases | ClusterLeases
    when_back: list[Callable[[], None]]


@dataclass(frozen=True, slots=True)
class _Server:
    """The calls to one server."""

    calls: Calls
    unguarded: Calls
    direct: Calls

    async def aclose(self) -> None:
        await self.calls.aclose()
        await self.direct.aclose()


@asynccontextmanager
async def open_redis(
    terms: RedisTerms, metrics: Metrics, clock: SystemClock, compare: Compare
) -> AsyncIterator[RedisParts]:
    """Connect. `compare` is awaited for the shards of each server that is new, before the traffic
    may go there. StoreUnavailable or UnfitStore when it cannot be used."""
    servers = _Servers(terms, metrics, compare)
    async with AsyncExitStack() as stack:
        if not is_cluster(terms.url):
            client = open_client(terms.url)
            stack.push_async_callback(client.aclose)
            _warn(await check_server(client, clock.now_ms()))
            server = servers.opened(terms.url, lambda: range(terms.shards))
            stack.push_async_callback(server.aclose)
            yield RedisParts(
                server.calls,
                server.unguarded,
                server.direct,
                RedisStreams(client, terms.shards),
                RedisLeases(client, terms.shards),
                servers.when_back,
            )
            return
        topology = Topology(terms.url, terms.shards)
        stack.push_async_callback(topology.aclose)
        await topology.refresh()
        jobs = JobNodes(topology, terms.shards)
        stack.push_async_callback(jobs.aclose)
        for url, job in zip(topology.urls, jobs.every(), strict=True):
            host = url.rpartition("@")[2].rpartition("/")[2].partition("?")[0]
            _warn(await check_server(job.client, clock.now_ms(), in_cluster=True), f"{host}: ")
        nodes: Nodes[_Server] = Nodes(
            topology,
            lambda url: servers.opened(url, lambda: topology.shards_of(url)),
            _Server.aclose,
        )
        stack.push_async_callback(nodes.aclose)
        yield RedisParts(
            ClusterCalls(nodes, lambda server: server.calls, terms.deadline_s),
            ClusterCalls(nodes, lambda server: server.unguarded, terms.deadline_s),
            ClusterCalls(nodes, lambda server: server.direct, _PATIENT_S),
            ClusterStreams(jobs, terms.shards),
            ClusterLeases(jobs, terms.shards),
            servers.when_back,
        )


class _Servers:
    """Makes the calls to a server, and counts the breakers that are open."""

    def __init__(self, terms: RedisTerms, metrics: Metrics, compare: Compare) -> None:
        self._terms = terms
        self._metrics = metrics
        self._compare = compare
        self._silent = 0
        self.when_back: list[Callable[[], None]] = []

    def opened(self, url: str, shards: Callable[[], Sequence[int]]) -> _Server:
        """The calls to the server behind this URL, which has these shards."""
        observe, deadline_s = self._metrics.store_call, self._terms.deadline_s

        def is_new(server_id: str) -> None:
            spawn(examine(server_id), f"examine {server_id}")

        async def examine(server_id: str) -> None:
            """Compare what the server knows, however long that takes, then accept it."""
            await examiners.disconnect()  # they may be with the server before it
            while watch.is_examined(server_id):
                try:
                    await self._compare(shards())
                except (StoreUnavailable, LedgerUnavailable) as error:
                    _log.warning("Redis %s is not compared yet: %s", server_id, error)
                    await asyncio.sleep(_EXAMINE_PAUSE_S)
                else:
                    watch.accept(server_id)

        watch = ServerWatch(is_new)
        examiners = open_connections(url, _PATIENT_S, watch.greet_examiner)
        kind = FastCalls if self._terms.client == "fast" else PlainCalls
        sent = kind(open_connections(url, deadline_s, watch.greet), deadline_s, observe)
        breaker = Breaker(sent, self._told, Chances(time.monotonic, random.random))
        breaker.when_back.append(self._is_back)
        return _Server(breaker, sent, PlainCalls(examiners, _PATIENT_S, observe))

    def _is_back(self) -> None:
        for each in self.when_back:
            each()

    def _told(self, is_open: bool) -> None:
        self._silent += 1 if is_open else -1
        self._metrics.breaker_open(self._silent > 0)


def _warn(warnings: Sequence[str], where: str = "") -> None:
    for warning in warnings:
        _log.warning("%s%s", where, warning)
