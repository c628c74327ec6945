"""What a reserve and its settlement cost this process, by client and by callers at once.

`python bench/redis_client.py` starts a Redis of its own and lets each client of the configuration
make pairs of calls, in turn with the other, with 1 and 32 callers. Told is processor time of this
process (user and system) a pair, the median of the turns; Redis's own time is not in it. `bare`
are the same two calls with their requests and replies ready, so it is what the loop, the socket and
the matching cost; the rest is arguments in, typed replies out. `--uvloop` takes that loop.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import uvloop

from gateway.adapters.embedded import start_redis
from gateway.adapters.redis_store.calls import Calls, open_connections
from gateway.adapters.redis_store.fast_calls import FastCalls
from gateway.adapters.redis_store.plain_calls import PlainCalls
from gateway.adapters.redis_store.quota_store import RedisQuotaStore
from gateway.adapters.redis_store.scripts import load_scripts, lua_folder
from gateway.core.quota.entitle import LedgerSums
from gateway.core.quota.reserve import Limits, ReserveAsk, ReserveCode
from gateway.core.quota.settle import SettleCode, Settlement
from gateway.ports.tasks import spawn

SHARDS, USERS = 16, 500
CALLERS = (1, 32)
TURNS, PAIRS = 7, 640
_STARTS_MS, _ENDS_MS = 1, 2**49
_LIMITS = Limits(2**40)
_TAIL = b'{"payer":"user-0123","user_id":"user-0123","tier":"free","route":"chat","model":"m"}' * 2
_EVENT = _TAIL * 2

Pair = Callable[[int], Awaitable[None]]


async def _pair(store: RedisQuotaStore, number: int) -> None:
    rid, payer = f"01a0b1c2-d3e4-7f00-8000-{number:012d}", f"user-{number % USERS:04d}"
    held = await store.reserve(
        ReserveAsk(
            rid=rid, payer=payer, tier="free", rev=0, period_start_ms=_STARTS_MS,
            period_end_ms=_ENDS_MS, limits=_LIMITS, prompt_tokens=100, output_wanted=50,
            output_least=10, choices=1, lease_ms=60_000, tail=_TAIL,
        )
    )  # fmt: skip
    assert held.code is ReserveCode.HELD
    replied = await store.settle(
        Settlement(
            rid=rid, payer=payer, kind="settle", epoch=1, period_start_ms=_STARTS_MS,
            charged_tokens=120, cost_nano_gbp=3_000, event_json=_EVENT, tier="free",
            limit_tokens=2**40, thresholds_percent=(80, 95, 100),
        )
    )  # fmt: skip
    replied.add_done_callback(_confirmed)


def _confirmed(reply: asyncio.Future[Any]) -> None:
    assert reply.result().code is SettleCode.SETTLED


def _seen(reply: asyncio.Future[Any]) -> None:
    assert reply.cancelled() or reply.result()


async def _bare(calls: Calls) -> Pair:
    scripts = load_scripts(lua_folder())
    extend = scripts["extend"]
    keys = ("qg:{00}:h:nobody", "qg:{00}:l")

    async def pair(number: int) -> None:
        rid = f"01a0b1c2-d3e4-7f00-8000-{number:012d}"
        args = (rid, rid, 0, 1)
        await calls.run(extend, keys, args, rid)
        (await calls.send(extend, keys, args, rid, list)).add_done_callback(_seen)

    return pair


async def _cpu_us(pair: Pair, numbers: Iterator[int], callers: int) -> float:
    async def caller() -> None:
        for _ in range(PAIRS // callers):
            await pair(next(numbers))

    began_s = time.process_time()
    await asyncio.gather(*(spawn(caller(), "caller", awaited=True) for _ in range(callers)))
    return (time.process_time() - began_s) / (PAIRS // callers * callers) * 1e6


async def _bring(store: RedisQuotaStore) -> None:
    for shard in range(SHARDS):
        await store.open_shard(shard, 1, "0-0", 0, ())
    for number in range(USERS):
        payer = f"user-{number:04d}"
        begun = await store.hydrate_begin(payer, None, _STARTS_MS, _ENDS_MS)
        assert begun is not None
        await store.hydrate_finish(payer, None, begun, LedgerSums(0, 0, 0, 0, 0))


async def main() -> None:
    numbers = count()
    with tempfile.TemporaryDirectory(prefix="quota-bench-") as place:
        server = await start_redis(Path(place))
        scripts, pairs, opened = load_scripts(lua_folder()), dict[str, Pair](), list[Calls]()
        for name, kind in (("plain", PlainCalls), ("fast", FastCalls)):
            calls: Calls = kind(
                open_connections(server.url, 5.0), 5.0, lambda script, seconds: None
            )
            opened.append(calls)
            store = RedisQuotaStore(calls, scripts, SHARDS)
            for script in scripts.values():
                await calls.command("SCRIPT", "LOAD", script.source)
            pairs[name] = partial(_pair, store)
            pairs[f"{name} bare"] = await _bare(calls)
            await _bring(store)
        found: dict[tuple[str, int], list[float]] = {}
        for _ in range(TURNS):
            for name, pair in pairs.items():
                for callers in CALLERS:
                    spent_us = await _cpu_us(pair, numbers, callers)
                    found.setdefault((name, callers), []).append(spent_us)
        for calls in opened:
            await calls.aclose()
        await server.stop()
    for (name, callers), spent in found.items():
        print(f"{name:12} {callers:3} callers  {statistics.median(spent):6.1f} us a pair")


if __name__ == "__main__":
    (uvloop if "--uvloop" in sys.argv else asyncio).run(main())
