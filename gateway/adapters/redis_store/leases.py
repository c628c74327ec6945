"""The leases in Redis, as the sweeper reads them, and the accounts it may look at.

A hold is only found here; it is ended by the script that checks its lease once more. What no
gateway can read is dropped, with a line in the log: it would be found for ever. What such a hold
held comes free when its account is brought back from the ledger.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from redis.asyncio import Redis

from gateway.adapters.redis_store.clients import asked
from gateway.adapters.redis_store.keys import (
    ACCOUNTS_PATTERN,
    account_of_key,
    keys_of_name,
    shard_keys,
)
from gateway.core.quota.settle import LapsedHold

_ENDINGS_ROWS_MAX = 500  # forgotten at once; the next sweep takes the rest
_HOLD = re.compile(rb"[ho] \d+ (\d+) \d+ (\d+) \d+ (\d+) (.*)", re.DOTALL)
_log = logging.getLogger("gateway.leases")


class RedisLeases:
    """Fulfils ports.quota_store.Leases."""

    def __init__(self, client: Redis, shards: int) -> None:
        self._client: Any = client  # redis-py types each reply as one of sync and async
        self.shards = shards

    async def lapsed(self, shard: int, grace_ms: int, rows_max: int) -> Sequence[LapsedHold]:
        keys = shard_keys(shard)
        seconds, micros = await asked("TIME", self._client.time())
        now_ms = seconds * 1000 + micros // 1000
        await self._forget_endings(shard, now_ms)
        members = await asked(
            "ZRANGEBYSCORE",
            self._client.zrangebyscore(keys.leases, 0, now_ms - grace_ms, 0, rows_max),
        )
        if not members:
            return []
        epoch = int(await asked("HGET", self._client.hget(keys.meta, "e")) or 0)
        names = [_name_of(member) for member in members]
        pipe = self._client.pipeline(transaction=False)
        for account, rid in names:
            pipe.hget(keys_of_name(account, shard).holds, rid)
        holds = await asked("HGET", pipe.execute())
        found = []
        for name, member, hold in zip(names, members, holds, strict=True):
            parts = _HOLD.fullmatch(hold or b"")
            if parts is None:  # ended by now, or nothing that anybody could end
                await asked("ZREM", self._client.zrem(keys.leases, member))
                await self._drop(shard, name, hold or b"")
            else:
                found.append(_lapsed(shard, epoch, name, parts))
        return found

    async def count(self, shard: int) -> int:
        return int(await asked("ZCARD", self._client.zcard(shard_keys(shard).leases)))

    async def _forget_endings(self, shard: int, now_ms: int) -> None:
        """Remove the kept endings whose time is over. A hold never comes back under its rid."""
        keys = shard_keys(shard)
        due = await asked(
            "ZRANGEBYSCORE",
            self._client.zrangebyscore(keys.endings, 0, now_ms, 0, _ENDINGS_ROWS_MAX),
        )
        if not due:
            return
        pipe = self._client.pipeline(transaction=True)
        for member in due:
            account, rid = _name_of(member)
            pipe.hdel(keys_of_name(account, shard).holds, rid)
            pipe.zrem(keys.endings, member)
        await asked("HDEL", pipe.execute())

    async def accounts(self, position: int, rows_max: int) -> tuple[int, Sequence[tuple[str, int]]]:
        position, found = await asked(
            "SCAN", self._client.scan(position, match=ACCOUNTS_PATTERN, count=rows_max)
        )
        accounts = []
        for key in found:
            with suppress(ValueError):  # a key that only looks like ours
                accounts.append(account_of_key(key.decode()))
        return int(position), accounts

    async def _drop(self, shard: int, name: tuple[str, str], hold: bytes) -> None:
        account, rid = name
        if hold.startswith((b"h ", b"o ")):
            _log.error("hold %s is dropped: it cannot be read: %r", rid, hold[:200])
            await asked("HDEL", self._client.hdel(keys_of_name(account, shard).holds, rid))


def _name_of(member: bytes) -> tuple[str, str]:
    """Account and rid of a lease or a kept ending; of what is neither, names that nothing has."""
    account, _, rid = member.decode(errors="replace").partition(" ")
    return account, rid


def _lapsed(shard: int, epoch: int, name: tuple[str, str], parts: re.Match[bytes]) -> LapsedHold:
    hold_tokens, period, progress, tail = parts.groups()
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
