"""Is this Redis fit to keep money? Asked once, at start-up.

A server that may evict keys, that is a replica, that is too old, or whose clock is far off is
refused: counters would vanish, be refused or end early. Without an append-only file it is accepted
with a warning, because everything would come back from the ledger but the newest seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from gateway.ports.quota_store import StoreUnavailable

VERSION_MIN = (7, 0)  # shebang scripts with flags, XADD and friends as the scripts use them
SKEW_MS_MAX = 60_000  # leases and periods are judged by Redis, their borders computed here


class UnfitStore(Exception):
    """The server must not be used as it is; the text says what to change."""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server says of itself. A setting is None where the provider forbids asking."""

    version: str
    role: str
    is_cluster_node: bool
    policy: str | None
    append_only: str | None
    now_ms: int


async def check_server(client: Redis, now_ms: int, in_cluster: bool = False) -> Sequence[str]:
    """Warnings about the server, or one node `in_cluster`; UnfitStore when it must not be used."""
    facts = await facts_of(client)
    faults = faults_of(facts, now_ms, in_cluster)
    if faults:
        raise UnfitStore("; ".join(faults))
    return warnings_of(facts)


async def facts_of(client: Redis) -> ServerFacts:
    """Ask it; StoreUnavailable when it does not answer."""
    try:
        info: dict[str, Any] = await client.info()
        seconds, microseconds = await client.time()
        return ServerFacts(
            version=str(info["redis_version"]),
            role=str(info.get("role")),
            is_cluster_node=bool(info.get("cluster_enabled")),
            policy=await _setting(client, "maxmemory-policy"),
            append_only=await _setting(client, "appendonly"),
            now_ms=int(seconds) * 1000 + int(microseconds) // 1000,
        )
    except (RedisError, OSError) as error:
        raise StoreUnavailable(f"Redis: {type(error).__name__}: {error}") from error


def faults_of(facts: ServerFacts, now_ms: int, in_cluster: bool = False) -> Sequence[str]:
    """Everything for which it must not be used, and what to do."""
    faults = []
    version = tuple(int(part) for part in facts.version.split(".")[:2])
    if version < VERSION_MIN:
        faults.append(f"Redis {facts.version} is too old: version 7.0 is the least")
    if facts.role != "master":
        faults.append("redis.url names a replica: give it the primary")
    if facts.is_cluster_node and not in_cluster:
        faults.append(
            "redis.url names a node of a cluster, which has a part of the keys only: "
            "write redis+cluster:// before its host"
        )
    if facts.policy not in ("noeviction", None):
        faults.append(
            f"Redis evicts keys (maxmemory-policy {facts.policy}): counters would vanish. "
            "Set it to noeviction"
        )
    skew_ms = abs(facts.now_ms - now_ms)
    if skew_ms > SKEW_MS_MAX:
        faults.append(
            f"the clocks of Redis and of this machine are {skew_ms // 1000} s apart: "
            "synchronise them (60 s is the most)"
        )
    return faults


def warnings_of(facts: ServerFacts) -> Sequence[str]:
    """What it is used in spite of."""
    if facts.append_only == "no":
        return ["Redis keeps no append-only file: a restart loses what the ledger has not drained"]
    return []


async def _setting(client: Redis, name: str) -> str | None:
    """A setting of the server; None where the provider forbids asking."""
    try:
        reply = await client.config_get(name)
    except ResponseError:
        return None
    value = reply.get(name) if isinstance(reply, dict) else None
    return value.decode() if isinstance(value, bytes) else value
