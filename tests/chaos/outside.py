"""Looking at the world from outside: plain SQL, plain Redis commands, the stand-in's own tally.

Nothing of the product reads here, so a fault in its reading cannot hide one in its writing. The
names of keys and the two texts of an account are those that `lua/README.md` describes.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import aiohttp
import asyncpg
import redis.asyncio
from redis.exceptions import RedisError

from tests.chaos.gateways import environment
from tests.chaos.records import Account, Applied, Row, Served
from tests.chaos.world import World
from tests.gateway.running_gateway import ROOT

SHARDS = 16
_LOOK_EVERY_S = 0.05
_SILENT_S = 0.5
_VERIFY_S = 120.0
_ROWS = """
SELECT event_id::text, coalesce(corrects, event_id)::text AS rid, kind, user_id, tag,
    charged_tokens, held_tokens, overdraft_tokens, quality, outcome, coalesce(status, 0) AS status,
    (extract(epoch FROM period) * 1000)::bigint AS period_ms, extract(epoch FROM at)::float8 AS at_s
FROM ledger WHERE kind IN ('usage', 'correction', 'adjustment')
"""


class Outside:
    """Connections to the stores that no link can break. `leases_s`, `gone_s` and `silences` are
    what `watch` has seen: on a busy machine Redis, or this process, may stand still without a
    fault."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._redis: Any = redis.asyncio.Redis.from_url(world.redis_url, decode_responses=True)
        self.leases_s: dict[str, float] = {}
        self.gone_s: dict[str, float] = {}
        self.silences: list[Applied] = []

    async def watch(self) -> None:
        """Note the deadline of every lease, over and over, and when it was gone. What Redis does
        not say is not known."""
        held: set[str] = set()
        while True:
            asked_s = time.time()
            with suppress(RedisError, OSError):
                now_held = await self._held()
                self.gone_s.update(dict.fromkeys(held - now_held, time.time()))
                held = now_held
            await asyncio.sleep(_LOOK_EVERY_S)
            if time.time() - asked_s > _SILENT_S:
                self.silences.append(Applied("silence", "redis", asked_s, time.time()))

    async def _held(self) -> set[str]:
        held = set()
        for members in await self._of_each_shard("zrange", "l", 0, -1, withscores=True):
            for member, deadline_ms in members:
                rid = member.partition(" ")[2]
                held.add(rid)
                self.leases_s[rid] = max(self.leases_s.get(rid, 0.0), deadline_ms / 1000)
        return held

    async def open_holds(self) -> int:
        return sum(await self._of_each_shard("zcard", "l"))

    async def undrained(self) -> int:
        """Shards whose newest event is not booked yet."""
        rows = await self._sql("SELECT shard, cursor FROM shards")
        cursors = {row["shard"]: _position(row["cursor"]) for row in rows}
        newest = await self._of_each_shard("xrevrange", "o", "+", "-", count=1)
        return sum(
            bool(found) and _position(found[0][0]) > cursors.get(shard, (0, 0))
            for shard, found in enumerate(newest)
        )

    async def dead_rows(self) -> int:
        (row,) = await self._sql("SELECT count(*) AS dead FROM ledger_dead")
        return int(row["dead"])

    async def rows(self) -> Sequence[Row]:
        """Every entry of the ledger that charges somebody."""
        found = await self._sql(_ROWS)
        return [
            Row(**{"user" if name == "user_id" else name: value for name, value in row.items()})
            for row in found
        ]

    async def accounts(self, users: Sequence[str]) -> Sequence[Account]:
        """The accounts of these users that are in Redis."""
        epochs = [await self._redis.hget(f"qg:{{{shard:02d}}}:m", "e") for shard in range(SHARDS)]
        found = []
        for user in users:
            shard = _shard_of(user)
            fields = await self._redis.hgetall(f"qg:{{{shard:02d}}}:a:{_digest_of(user)}")
            if fields:
                about, use = (list(map(int, fields[name].split())) for name in ("a", "u"))
                used = use[0] - use[1] + about[4]
                in_force = str(about[0]) == epochs[shard]
                found.append(Account(user, in_force, about[2], used, use[5], use[6]))
        return found

    async def served(self) -> Mapping[str, Served]:
        """What the upstream says that it served."""
        url = self._world.upstream.url.removesuffix("/v1") + "/stand-in/served"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            calls = json.loads(await response.read())["calls"]
        return {
            rid: Served(
                call["user"],
                call["prompt_tokens"],
                call["completion_tokens"],
                call["finished"],
                call["reported"],
                call["seen"],
            )
            for rid, call in calls.items()
        }

    async def verify(self) -> str:
        """What `ledger verify` prints when it finds a difference, else ''."""
        words = ("ledger", "verify", "--config", str(self._world.direct.place / "config.yaml"))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", *words, "--upstream", self._world.upstream.url),
            cwd=ROOT,
            env={**environment(), "COLUMNS": "200"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(_VERIFY_S):
            said, _ = await process.communicate()
        return "" if process.returncode == 0 else f"\n{said.decode().strip()}"

    async def close(self) -> None:
        await self._redis.aclose()

    async def _of_each_shard(self, command: str, key: str, *given: Any, **named: Any) -> list[Any]:
        pipe = self._redis.pipeline(transaction=False)
        for shard in range(SHARDS):
            getattr(pipe, command)(f"qg:{{{shard:02d}}}:{key}", *given, **named)
        return list(await pipe.execute())

    async def _sql(self, statement: str) -> list[Any]:
        connection = await asyncpg.connect(self._world.postgres_url)
        try:
            return list(await connection.fetch(statement))
        finally:
            await connection.close()


def _position(stream_id: str) -> tuple[int, int]:
    ms, _, sequence = stream_id.partition("-")
    return int(ms), int(sequence)


def _digest_of(payer: str) -> str:
    digest = hashlib.blake2b(payer.encode(), digest_size=16).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _shard_of(payer: str) -> int:
    digest = hashlib.blake2b(payer.encode(), digest_size=8, person=b"qg-shard").digest()
    return int.from_bytes(digest, "big") % SHARDS
