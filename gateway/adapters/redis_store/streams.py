"""What the jobs read in Redis: the outbox streams and the leases.

These commands wait, or read much, so they have connections of their own and redis-py's usual client
with its retries switched off.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.adapters.redis_store.keys import keys_of_name, shard_keys
from gateway.ports.quota_store import LapsedHold, OutboxEntry, StoreUnavailable

_BACKLOG_MAX = 1000  # enough to see that the drain is behind; reading more would slow it further
_ENDINGS_ROWS_MAX = 500  # forgotten at once; the next sweep takes the rest


def open_client(url: str, wait_s: float = 5.0) -> Redis:
    """A client whose answers may take `wait_s` longer than the longest blocking read (1 s)."""
    return Redis.from_url(
        url,
        protocol=2,  # one form of reply for XREAD, old servers and new
        socket_connect_timeout=wait_s,
        socket_timeout=wait_s + 1.0,
        retry=Retry(NoBackoff(), 0),
    )


class RedisStreams:
    """Fulfils ports.quota_store.Outbox and .Leases."""

    def __init__(self, client: Redis, shards: int) -> None:
        self._client = client
        self.shards = shards

    async def read(
        self, cursors: dict[int, str], rows_max: int, wait_ms: int
    ) -> Sequence[OutboxEntry]:
        names = {shard_keys(shard).outbox: shard for shard in cursors}
        streams: dict[Any, Any] = {name: cursors[shard] for name, shard in names.items()}
        reply = await self._ask("XREAD", self._client.xread(streams, rows_max, wait_ms))
        return [
            OutboxEntry(
                shard=names[name.decode()],
                stream_id=stream_id.decode(),
                event_json=fields.get(b"e", b""),
                script_part=fields.get(b"b", b""),
            )
            for name, entries in reply
            for stream_id, fields in entries
        ]

    async def last_ids(self) -> dict[int, str]:
        ids = {}
        for shard in range(self.shards):
            key = shard_keys(shard).outbox
            if await self._ask("EXISTS", self._client.exists(key)):
                info = await self._ask("XINFO", self._client.xinfo_stream(key))
                ids[shard] = info["last-generated-id"].decode()
            else:
                ids[shard] = "0-0"
        return ids

    async def backlog(self, shard: int, cursor: str) -> tuple[int, str | None]:
        entries = await self._ask(
            "XRANGE",
            self._client.xrange(shard_keys(shard).outbox, f"({cursor}", "+", _BACKLOG_MAX),
        )
        return len(entries), entries[0][0].decode() if entries else None

    async def trim(self, shard: int, before_id: str, bytes_max: int, cursor: str) -> None:
        key = shard_keys(shard).outbox
        oldest_kept = min(before_id, cursor, key=_id_parts)
        await self._ask("XTRIM", self._client.xtrim(key, minid=oldest_kept, approximate=True))
        size = await self._ask("MEMORY", self._client.memory_usage(key))
        if size and size > bytes_max:
            await self._ask("XTRIM", self._client.xtrim(key, minid=cursor, approximate=True))

    async def lapsed(self, shard: int, grace_ms: int, rows_max: int) -> Sequence[LapsedHold]:
        keys = shard_keys(shard)
        seconds, micros = await self._ask("TIME", self._client.time())
        now_ms = seconds * 1000 + micros // 1000
        await self._forget_endings(shard, now_ms)
        members = await self._ask(
            "ZRANGEBYSCORE",
            self._client.zrangebyscore(keys.leases, 0, now_ms - grace_ms, 0, rows_max),
        )
        if not members:
            return []
        epoch = int(await self._ask("HGET", self._client.hget(keys.meta, "e")) or 0)
        names = [member.decode().split(" ", 1) for member in members]
        pipe = self._client.pipeline(transaction=False)
        for account, rid in names:
            pipe.hget(keys_of_name(account, shard).holds, rid)
        holds = await self._ask("HGET", pipe.execute())
        found = []
        for (account, rid), member, hold in zip(names, members, holds, strict=True):
            if hold is None:  # its account is gone: nothing is held, so the lease means nothing
                await self._ask("ZREM", self._client.zrem(keys.leases, member))
            elif hold.startswith(b"h "):
                found.append(_lapsed(shard, epoch, (account, rid), hold))
        return found

    async def count(self, shard: int) -> int:
        return int(await self._ask("ZCARD", self._client.zcard(shard_keys(shard).leases)))

    async def _forget_endings(self, shard: int, now_ms: int) -> None:
        """Remove the kept endings whose time is over. A hold never comes back under its rid."""
        keys = shard_keys(shard)
        due = await self._ask(
            "ZRANGEBYSCORE",
            self._client.zrangebyscore(keys.endings, 0, now_ms, 0, _ENDINGS_ROWS_MAX),
        )
        if not due:
            return
        pipe = self._client.pipeline(transaction=True)
        for member in due:
            account, rid = member.decode().split(" ", 1)
            pipe.hdel(keys_of_name(account, shard).holds, rid)
            pipe.zrem(keys.endings, member)
        await self._ask("HDEL", pipe.execute())

    async def _ask(self, command: str, call: Any) -> Any:
        try:
            return await call
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"{command}: {type(error).__name__}: {error}") from error


def _id_parts(stream_id: str) -> tuple[int, int]:
    ms, _, seq = stream_id.partition("-")
    return int(ms), int(seq or 0)


def _lapsed(shard: int, epoch: int, name: tuple[str, str], hold: bytes) -> LapsedHold:
    _, _, hold_tokens, period, _, progress, tail = hold.split(b" ", 6)
    return LapsedHold(
        rid=name[1],
        account=name[0],
        shard=shard,
        epoch=epoch,
        hold_tokens=int(hold_tokens),
        progress_tokens=int(progress),
        period_start_ms=int(period),
        tail=tail,
    )
