"""How long the scripts take and how much an account takes, by the number of users.

`python bench/scripts.py 1000 100000 1000000` fills a Redis of its own with so many accounts and
then times calls of users drawn at random. Time is the server's own count (INFO commandstats) over
pipelined calls; an empty script and a plain HGET in the same run tell how fast the machine is. No
limit beside the month's is set.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import redis

from gateway.adapters.embedded import start_redis
from gateway.adapters.redis_store.keys import SCHEMA_VERSION, account_keys, shard_keys, tier_key
from gateway.adapters.redis_store.scripts import load_scripts, lua_folder

SHARDS = 16
TIMED_CALLS = 20_000
CALLED_MAX = 100_000  # of a million accounts the rest is only brought back, to save minutes
_AT_ONCE = 200
_DAY_MS = 86_400_000
_TAIL = (
    '{"payer":"user-0123456789ab","user_id":"user-0123456789ab","tier":"free","route":"chat",'
    '"model":"gpt-4o-mini","price_id":"2026-11","prompt_tokens":100,"limit_tokens":100000}'
)
_EVENT = _TAIL * 3
_NO_LIMITS = " " * 5  # none beside the month's


class Server:
    """A Redis with accounts in it."""

    def __init__(self, url: str) -> None:
        self.client: Any = redis.Redis.from_url(url, protocol=2)
        sources = load_scripts(lua_folder())
        self._shas = {name: self.client.script_load(each.source) for name, each in sources.items()}
        self._empty = self.client.script_load("#!lua\nreturn 1")
        now_ms = int(self.client.time()[0]) * 1000
        self._starts, self._ends = now_ms - _DAY_MS, now_ms + 29 * _DAY_MS
        self._calls = 0
        for shard in range(SHARDS):
            keys = shard_keys(shard)
            self._run(
                "open", self.client, (keys.meta, keys.outbox), (1, SHARDS, SCHEMA_VERSION, "0-0", 0, "", "")
            )

    def fill(self, first: int, last: int) -> None:
        """Accounts of the users first … last - 1; the first CALLED_MAX have made a call."""
        for start in range(first, last, _AT_ONCE):
            users = range(start, min(start + _AT_ONCE, last))
            self._bring(users)
            if start < CALLED_MAX:
                self._call(users)
            for shard in range(SHARDS):
                self.client.xtrim(shard_keys(shard).outbox, maxlen=0)

    def _bring(self, users: Sequence[int]) -> None:
        begun = self._each(users, lambda pipe, user: self._hydrate(pipe, user, "begin", ""))
        tokens = {user: reply[1] for user, reply in zip(users, begun, strict=True)}
        self._each(users, lambda pipe, user: self._hydrate(pipe, user, "finish", tokens[user]))

    def time(self, users: int) -> tuple[float, float]:
        """Microseconds of a reserve and of a settle, users drawn at random."""
        taken_us = {"reserve": 0.0, "settle": 0.0}
        for _ in range(TIMED_CALLS // _AT_ONCE):
            chosen = random.sample(range(users), min(_AT_ONCE, users))
            for kind in taken_us:
                self.client.config_resetstat()
                self._half_call(chosen, kind)
                taken_us[kind] += self.client.info("commandstats")["cmdstat_evalsha"]["usec"]
            self._calls += _AT_ONCE
        return taken_us["reserve"] / TIMED_CALLS, taken_us["settle"] / TIMED_CALLS

    def yardstick(self) -> tuple[float, float]:
        """Microseconds of an empty script and of HGET of one field."""
        key = account_keys("u0", SHARDS).account
        self.client.config_resetstat()
        self._each(range(_AT_ONCE * 10), lambda pipe, _: pipe.evalsha(self._empty, 0))
        self._each(range(_AT_ONCE * 10), lambda pipe, _: pipe.hget(key, "s"))
        stats = self.client.info("commandstats")
        return stats["cmdstat_evalsha"]["usec_per_call"], stats["cmdstat_hget"]["usec_per_call"]

    def _call(self, users: Sequence[int]) -> None:
        self._half_call(users, "reserve")
        self._half_call(users, "settle")
        self._calls += _AT_ONCE

    def _half_call(self, users: Iterable[int], kind: str) -> None:
        work = self._reserve if kind == "reserve" else self._settle
        places = list(enumerate(users, self._calls))
        pipe = self.client.pipeline(transaction=False)
        for place, user in places:
            work(pipe, user, f"01a0b1c2-d3e4-7f00-8000-{place:012d}")
        codes = {reply[0] for reply in pipe.execute()}
        assert codes == {1}, codes

    def _hydrate(self, pipe: Any, user: int, step: str, token: Any) -> None:
        keys = account_keys(f"u{user}", SHARDS)
        names = (keys.of_shard.meta, keys.account, keys.packs, keys.of_shard.outbox, keys.holds)
        args = (step, self._starts, self._ends, token, 0, 0, 0, 0, 1, "", "")
        self._run("hydrate", pipe, names, args)

    def _reserve(self, pipe: Any, user: int, rid: str) -> None:
        keys = account_keys(f"u{user}", SHARDS)
        of_shard = keys.of_shard
        names = (
            of_shard.meta, keys.account, keys.holds, of_shard.leases, keys.packs,
            tier_key("free", keys.shard),
        )  # fmt: skip
        args = (
            rid, keys.member(rid),
            f"1 1 {self._starts} {self._ends} 100 50 16 1 1000 480 60000 {10**12}",
            _NO_LIMITS, _TAIL, "",
        )  # fmt: skip
        self._run("reserve", pipe, names, args)

    def _settle(self, pipe: Any, user: int, rid: str) -> None:
        keys = account_keys(f"u{user}", SHARDS)
        of_shard = keys.of_shard
        names = (
            of_shard.meta, keys.account, keys.holds, of_shard.leases, of_shard.outbox,
            of_shard.endings, keys.packs, tier_key("free", keys.shard),
        )  # fmt: skip
        args = (
            rid, keys.member(rid), "settle", f"1 {self._starts} 120 25000 10000 {10**12}", "",
            "80 95 100", _EVENT, "",
        )  # fmt: skip
        self._run("settle", pipe, names, args)

    def _run(self, name: str, on: Any, names: Sequence[str], args: Sequence[Any]) -> None:
        on.evalsha(self._shas[name], len(names), *names, *args)

    def _each(self, items: Iterable[int], work: Any) -> list[Any]:
        pipe = self.client.pipeline(transaction=False)
        for item in items:
            work(pipe, item)
        return list(pipe.execute())


async def main(sizes: Sequence[int]) -> None:
    """Print one line a size."""
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        redis_server = await start_redis(Path(place))
        try:
            server = Server(redis_server.url)
            server.client.config_set("appendonly", "no")
            empty_bytes, filled = server.client.info("memory")["used_memory"], 0
            print(f"{redis_server.engine}; microseconds a call, as the server counts them")
            print("users      reserve  settle  both  empty script  hget  bytes a user")
            for size in sorted(sizes):
                server.fill(filled, size)
                filled = size
                taken = server.client.info("memory")["used_memory"] - empty_bytes
                reserve_us, settle_us = server.time(size)
                script_us, hget_us = server.yardstick()
                both_us = reserve_us + settle_us
                print(
                    f"{size:<9,}  {reserve_us:7.1f}  {settle_us:6.1f}  {both_us:4.0f}"
                    f"  {script_us:12.2f}  {hget_us:4.2f}  {taken / size:12.0f}",
                    flush=True,
                )
        finally:
            await redis_server.stop()


if __name__ == "__main__":
    asyncio.run(main([int(word) for word in sys.argv[1:]] or [1000, 100_000]))
