"""Redis servers of the tests' own that know each other: a cluster, or a master with Sentinels.

Real processes on free ports of this machine, without files but the append-only one. Each can be
killed and started again with what it had.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import redis
from redis.crc import key_slot

from gateway.adapters.embedded.engines import REDIS, pick, server_environment
from gateway.adapters.redis_store.keys import shard_keys

NODES = 3
SLOTS = 16384
# What a test has an answer to is on disk: with `everysec`, a slow disk holds back a second or two.
FILES = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def until(true: Callable[[], Any], what: str, within_s: float = 30.0) -> Any:
    """What `true` says as soon as it is true; a server that does not answer says nothing."""
    until_s = time.monotonic() + within_s
    while True:
        with suppress(redis.ConnectionError, redis.ResponseError, redis.TimeoutError):
            if said := true():
                return said
        assert time.monotonic() < until_s, what
        time.sleep(0.02)


class RedisNode:
    """One server process with its own folder. `words` are its options, or where its file is."""

    def __init__(self, place: Path, *words: str) -> None:
        place.mkdir()
        self.place = place
        self.port = free_port()
        self._words = words
        self.process: subprocess.Popen[bytes]
        self.client: Any = redis.Redis(port=self.port, protocol=2)
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        binary = pick(REDIS, "any", self.place, None).binary
        common = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.place))
        with (self.place / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(binary), *self._words, *common], env=server_environment(), stdout=log
            )
        until(self.client.ping, f"no server: {(self.place / 'log').read_text()[-500:]}")

    def kill(self) -> None:
        """At once, as by a power cut, but that what it wrote is on disk."""
        self.process.kill()
        self.process.wait()
        self.client.connection_pool.disconnect()

    def end(self) -> None:
        self.kill()
        self.client.close()


class RedisCluster:
    """Three primaries. One that is down keeps the others' slots open."""

    def __init__(self, nodes: Sequence[RedisNode]) -> None:
        self.nodes = nodes
        self.url = "redis+cluster://" + ",".join(node.address for node in nodes)

    def flush(self) -> None:
        for node in self.nodes:
            node.client.flushall()

    def owner_of(self, shard: int) -> RedisNode:
        """The node that holds the shard, as the cluster was made."""
        return self.nodes[slot_of(shard) * NODES // SLOTS]


def slot_of(shard: int) -> int:
    slot: int = key_slot(shard_keys(shard).meta.encode())
    return slot


@contextmanager
def open_cluster(place: Path) -> Iterator[RedisCluster]:
    """A cluster of its own, ready."""
    with ExitStack() as stack:
        nodes = []
        for number in range(NODES):
            nodes.append(cluster_node(place / f"node{number}"))
            stack.callback(nodes[-1].end)
        for number, node in enumerate(nodes):
            first, last = (-(-(number + i) * SLOTS // NODES) - i for i in (0, 1))
            node.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            join(node, nodes[0])
        for node in nodes:
            until(partial(is_ready, node, NODES), "no cluster")
        yield RedisCluster(nodes)


def cluster_node(place: Path) -> RedisNode:
    """A server that may join a cluster."""
    return RedisNode(
        place,
        *("--cluster-enabled", "yes", "--cluster-port", str(free_port())),
        *("--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no"),
        *FILES,
    )


def join(node: RedisNode, other: RedisNode) -> None:
    """Make them know each other, and whom the other knows."""
    bus = other.client.config_get("cluster-port")["cluster-port"]
    node.client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port, bus)


def is_ready(node: RedisNode, nodes: int) -> bool:
    """Whether the node knows so many and may be talked to."""
    info = node.client.execute_command("CLUSTER", "INFO").decode()
    return "cluster_state:ok" in info and f"cluster_known_nodes:{nodes}\r" in info
