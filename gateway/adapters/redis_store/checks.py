"""Is this Redis fit to keep money? Asked once, at start-up.

A server that may evict keys, that is a replica, that is too old, or whose clock is far off is
refused: counters would vanish, be refused or end early. Without an append-only file it is accepted
with a warning, because everything would come back from the ledger but the newest seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from gateway.ports.quota_store import StoreUnavailable

VERSION_MIN = (7, 0)  # shebang scripts with flags, XADD and friends as the scripts use them
SKEW_MS_MAX = 60_000  # leases and periods are judged by Redis, their borders computed here


class UnfitStore(Exception):
    """The server must not be used as it is; the text says what to change."""


async def check_server(client: Redis, now_ms: int, in_cluster: bool = False) -> Sequence[str]:
    """Warnings about the server, or one node `in_cluster`; UnfitStore when it must not be used."""
    try:
        info: dict[str, Any] = await client.info()
        seconds, _ = await client.time()
        policy = await _setting(client, "maxmemory-policy")
        append_only = await _setting(client, "appendonly")
    except (RedisError, OSError) as error:
        raise StoreUnavailable(f"Redis: {type(error).__name__}: {error}") from error
    version = tuple(int(part) for part in str(info["redis_version"]).split(".")[:2])
    if version < VERSION_MIN:
        raise UnfitStore(f"Redis {info['redis_version']} is too old: version 7.0 is the least")
    if info.get("role") != "master":
        raise UnfitStore("redis.url names a replica: give it the primary")
    if info.get("cluster_enabled") and not in_cluster:
        raise UnfitStore(
            "redis.url names a node of a cluster, which has a part of the keys only: "
            "write redis+cluster:// before its host"
        )
    if policy not in ("noeviction", None):
        raise UnfitStore(
            f"Redis evicts keys (maxmemory-policy {policy}): counters would vanish. "
            "Set it to noeviction"
        )
    skew_ms = abs(int(seconds) * 1000 - now_ms)
    if skew_ms > SKEW_MS_MAX:
        raise UnfitStore(
            f"the clocks of Redis and of this machine are {skew_ms // 1000} s apart: "
            "synchronise them (60 s is the most)"
        )
    if append_only == "no":
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
