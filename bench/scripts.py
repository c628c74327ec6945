"""How long the scripts take and how much an account takes, by the number of users.

`python -m bench scripts 1000 100000 1000000` fills a Redis of its own with so many accounts and
then times calls of users drawn at random. Time is the server's own count (INFO commandstats) over
pipelined calls, the median of batches. In turn with each batch run two scripts that make the same
Redis calls with values of the same sizes, but know no rule: what ours take beyond these is their
own, and the ratio is what another machine can be held to. No limit beside the month's is set.
"""

from __future__ import annotations

import random
import statistics
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import redis

from bench.table import Table
from gateway.adapters.embedded import start_redis
from gateway.adapters.redis_store.keys import SCHEMA_VERSION, account_keys, shard_keys, tier_key
from gateway.adapters.redis_store.scripts import load_scripts, lua_folder

Facts = dict[str, Any]
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
_NO_LIMITS = " " * 6  # none beside the month's
_RULED, _BARE = ("reserve", "settle"), ("bare reserve", "bare settle")
_USE_HELD, _USE_FREE = "120 0 25000 1 0 150 1 25000", "240 0 50000 2 0 0 0 0"

# Same keys, arguments, commands and sizes as ours, and a reply as long; nothing is decided.
_BARE_SCRIPTS = {
    "bare reserve": f"""#!lua
redis.call('TIME')
redis.call('HMGET', KEYS[1], 'e', 'u')
redis.call('HMGET', KEYS[2], 'a', 'u')
redis.call('HGET', KEYS[3], ARGV[1])
redis.call('ZADD', KEYS[4], '1790000060000', ARGV[2])
redis.call('HSET', KEYS[3], ARGV[1], 'h 50 150 25000 1790000000000 1790000000000 0 ' .. ARGV[5])
redis.call('HSET', KEYS[2], 'u', '{_USE_HELD}')
return {{1, ARGV[1], 50, 150, 25000, 120, 150, 1e12, 0, 25000, 1e12, 1e12, 1e12, 0, 1, 1, 1}}
""",
    "bare settle": f"""#!lua flags=allow-oom
redis.call('HGET', KEYS[1], 'e')
redis.call('HMGET', KEYS[2], 'a', 'u')
redis.call('HGET', KEYS[3], ARGV[1])
local id = redis.call('XADD', KEYS[5], '*', 'e', ARGV[7],
                      'b', '1 2 1790000000000 150 120 0 0 0 0 0 0 0 -')
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('HSET', KEYS[2], 'u', '{_USE_FREE}')
redis.call('ZREM', KEYS[4], ARGV[2])
return {{1, ARGV[1], 240, 0, 1e12, 0, 120, 0, 0, id, 1}}
""",
}


class Server:
    """A Redis with accounts in it."""

    def __init__(self, url: str) -> None:
        self.client: Any = redis.Redis.from_url(url, protocol=2)
        sources = load_scripts(lua_folder())
        self._shas = {name: self.client.script_load(each.source) for name, each in sources.items()}
        for name, source in _BARE_SCRIPTS.items():
            self._shas[name] = self.client.script_load(source)
        self._empty = self.client.script_load("#!lua\nreturn 1")
        now_ms = int(self.client.time()[0]) * 1000
        self._starts, self._ends = now_ms - _DAY_MS, now_ms + 29 * _DAY_MS
        self._calls = 0
        for shard in range(SHARDS):
            keys = shard_keys(shard)
            self._run(
                "open",
                self.client,
                (keys.meta, keys.outbox),
                (1, SHARDS, SCHEMA_VERSION, "0-0", 0, "", ""),
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

    def time(self, users: int) -> dict[str, float]:
        """Microseconds of a reserve and a settle, and of their bare calls; users at random."""
        taken_us: dict[str, list[float]] = {kind: [] for kind in _RULED + _BARE}
        ran: dict[str, dict[str, int]] = {}
        for _ in range(TIMED_CALLS // _AT_ONCE):
            chosen = random.sample(range(users), min(_AT_ONCE, users))
            for kinds in (_RULED, _BARE):
                for kind in kinds:
                    self.client.config_resetstat()
                    self._half_call(chosen, kind)
                    stats = self.client.info("commandstats")
                    taken_us[kind].append(stats["cmdstat_evalsha"]["usec_per_call"])
                    ran[kind] = {name: told["calls"] for name, told in stats.items()}
                self._calls += _AT_ONCE
        for ruled, bare in zip(_RULED, _BARE, strict=True):
            assert ran[ruled] == ran[bare], f"{bare} does not make the calls of {ruled}: {ran}"
        return {kind: statistics.median(each) for kind, each in taken_us.items()}

    def yardstick(self) -> tuple[float, float]:
        """Microseconds of an empty script and of HGET of one field."""
        key = account_keys("u0", SHARDS).account
        self.client.config_resetstat()
        self._each(range(_AT_ONCE * 10), lambda pipe, _: pipe.evalsha(self._empty, 0))
        self._each(range(_AT_ONCE * 10), lambda pipe, _: pipe.hget(key, "u"))
        stats = self.client.info("commandstats")
        return stats["cmdstat_evalsha"]["usec_per_call"], stats["cmdstat_hget"]["usec_per_call"]

    def _call(self, users: Sequence[int]) -> None:
        self._half_call(users, "reserve")
        self._half_call(users, "settle")
        self._calls += _AT_ONCE

    def _half_call(self, users: Iterable[int], kind: str) -> None:
        work = self._reserve if kind.endswith("reserve") else self._settle
        places = list(enumerate(users, self._calls))
        pipe = self.client.pipeline(transaction=False)
        for place, user in places:
            work(pipe, user, f"01a0b1c2-d3e4-7f00-8000-{place:012d}", kind)
        codes = {reply[0] for reply in pipe.execute()}
        assert codes == {1}, codes

    def _hydrate(self, pipe: Any, user: int, step: str, token: Any) -> None:
        keys = account_keys(f"u{user}", SHARDS)
        names = (keys.of_shard.meta, keys.account, keys.packs, keys.of_shard.outbox, keys.holds)
        args = (step, self._starts, self._ends, token, 0, 0, 0, 0, 1, "", "")
        self._run("hydrate", pipe, names, args)

    def _reserve(self, pipe: Any, user: int, rid: str, script: str) -> None:
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
        self._run(script, pipe, names, args)

    def _settle(self, pipe: Any, user: int, rid: str, script: str) -> None:
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
        self._run(script, pipe, names, args)

    def _run(self, name: str, on: Any, names: Sequence[str], args: Sequence[Any]) -> None:
        on.evalsha(self._shas[name], len(names), *names, *args)

    def _each(self, items: Iterable[int], work: Any) -> list[Any]:
        pipe = self.client.pipeline(transaction=False)
        for item in items:
            work(pipe, item)
        return list(pipe.execute())


async def measure(sizes: Sequence[int]) -> Facts:
    """The figures at each size, smallest first."""
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        redis_server = await start_redis(Path(place))
        try:
            server = Server(redis_server.url)
            server.client.config_set("appendonly", "no")
            empty_bytes, filled = server.client.info("memory")["used_memory"], 0
            found: list[Facts] = []
            for size in sorted(sizes):
                server.fill(filled, size)
                filled = size
                taken_bytes = server.client.info("memory")["used_memory"] - empty_bytes
                found.append(_at(server, size) | {"bytes_a_user": taken_bytes / size})
            return {"engine": redis_server.engine, "sizes": found}
        finally:
            await redis_server.stop()


def _at(server: Server, size: int) -> Facts:
    taken_us = server.time(size)
    script_us, hget_us = server.yardstick()
    both_us = taken_us["reserve"] + taken_us["settle"]
    bare_us = taken_us["bare reserve"] + taken_us["bare settle"]
    return {
        "users": size,
        "reserve_us": taken_us["reserve"],
        "settle_us": taken_us["settle"],
        "bare_us": bare_us,
        "ratio": both_us / bare_us,
        "empty_us": script_us,
        "hget_us": hget_us,
    }


def table(facts: Facts) -> Table:
    """Microseconds a call, as the server counts them, and bytes."""
    rows = [
        (
            f"{each['users']:,}",
            f"{each['reserve_us']:.1f}",
            f"{each['settle_us']:.1f}",
            f"{each['reserve_us'] + each['settle_us']:.0f}",
            f"{each['bare_us']:.0f}",
            f"{each['ratio']:.2f}",
            f"{each['empty_us']:.2f}",
            f"{each['hget_us']:.2f}",
            f"{each['bytes_a_user']:.0f}",
        )
        for each in facts["sizes"]
    ]
    columns = (
        *("users", "reserve µs", "settle µs", "both", "bare calls", "ratio"),
        *("empty script", "HGET", "bytes of Redis a user"),
    )
    notes = (
        f"{facts['engine']}. Microseconds are the server's own count, medians of batches; no limit "
        "beside the month's is set. *Bare calls* are two scripts that make the same Redis calls "
        "with values of the same sizes, but know no rule, in turn with ours.",
    )
    return Table("The scripts, by the number of users", columns, rows, notes)
