"""The outbox in Redis, as the drain reads it.

These commands wait, or read much, so they have connections of their own (`clients.py`). Nothing is
written but trims, and these only below a cursor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis

from gateway.adapters.redis_store.clients import asked
from gateway.adapters.redis_store.keys import shard_keys
from gateway.adapters.redis_store.server_watch import id_of
from gateway.core.event import stream_position
from gateway.ports.outbox import OutboxEntry
from gateway.ports.quota_store import StoreUnavailable

_BACKLOG_MAX = 1000  # enough to see that the drain is behind; reading more would slow it further


class RedisStreams:
    """Fulfils ports.outbox.Outbox."""

    def __init__(self, client: Redis, shards: int) -> None:
        self._client = client
        # As the server tells it: redis-py would make two dicts and a list of each entry first.
        client.set_response_callback("XREAD", lambda response, **options: response)
        self.shards = shards

    async def server_id(self) -> str:
        info = await asked("INFO", self._client.info("server", "replication"))
        if info["role"] != "master":
            raise StoreUnavailable("the server is a replica")
        return id_of(info)

    async def read(
        self, cursors: dict[int, str], rows_max: int, wait_ms: int
    ) -> Sequence[OutboxEntry]:
        if not cursors:
            return []
        names = {shard_keys(shard).outbox.encode(): shard for shard in cursors}
        streams: dict[Any, Any] = {name: cursors[shard] for name, shard in names.items()}
        block = wait_ms or None  # to Redis, 0 means for ever
        reply = await asked("XREAD", self._client.xread(streams, rows_max, block))
        return [
            _entry(names[name], stream_id.decode(), dict(zip(parts[::2], parts[1::2], strict=True)))
            for name, entries in reply or ()
            for stream_id, parts in entries
        ]

    async def at(self, cursors: dict[int, str]) -> Sequence[OutboxEntry]:
        found = []
        for shard, stream_id in cursors.items():
            key = shard_keys(shard).outbox
            for _, fields in await asked("XRANGE", self._client.xrange(key, stream_id, stream_id)):
                found.append(_entry(shard, stream_id, fields))
        return found

    async def backlog(self, shard: int, cursor: str) -> tuple[int, str | None]:
        entries = await asked(
            "XRANGE",
            self._client.xrange(shard_keys(shard).outbox, f"({cursor}", "+", _BACKLOG_MAX),
        )
        return len(entries), entries[0][0].decode() if entries else None

    async def trim(self, shard: int, before_id: str, bytes_max: int, cursor: str) -> None:
        key = shard_keys(shard).outbox
        oldest_kept = min(before_id, cursor, key=stream_position)
        await asked("XTRIM", self._client.xtrim(key, minid=oldest_kept, approximate=True))
        size = await asked("MEMORY", self._client.memory_usage(key))
        if size and size > bytes_max:
            await asked("XTRIM", self._client.xtrim(key, minid=cursor, approximate=True))


def _entry(shard: int, stream_id: str, fields: dict[bytes, bytes]) -> OutboxEntry:
    return OutboxEntry(shard, stream_id, fields.get(b"e", b""), fields.get(b"b", b""))
