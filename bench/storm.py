"""How long it takes until everybody is served again after Redis was emptied under all of them.

`PYTHONPATH=. python bench/storm.py --users 5000` starts a Redis and a Postgres of its own, lets
each user make a call that is settled and booked, empties Redis, and has all of them call at once
through the product's own admission, with the drain in the same process. Who is answered 503 asks
again when told to. What it took of the ledger and of memory is measured on the way.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import asyncpg
import redis.asyncio

from gateway.adapters.prometheus_jobs_metrics import JobsMetrics
from gateway.adapters.prometheus_metrics import ProxyMetrics
from gateway.adapters.spill import SpillFiles
from gateway.adapters.upstream.direct import DirectUpstream
from gateway.app.embedded import embedded_stores, ledger_url_of, redis_url_of
from gateway.app.jobs_process import drain_of
from gateway.app.ledger_schema import prepare_ledger
from gateway.app.proxy_process import Worker, loaded_tokenizer
from gateway.app.secrets_of_state import pepper_of
from gateway.app.stores import Stores, open_stores
from gateway.config import Settings, load
from gateway.core.hold import Ending
from gateway.core.identity import format_key, key_digest
from gateway.core.inference.chat import judge_chat
from gateway.core.refusal import Refused
from gateway.core.rid import make_rid
from gateway.core.routes import CHAT
from gateway.core.usage import Usage
from gateway.flow.admit import Admitted, Call
from gateway.jobs.service import run_forever
from gateway.ports.tasks import spawn

_BODY = (
    b'{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9}'
)
_ENDING = Ending(Usage(10, 0, 9, 0), "measured", "done", 200)
_LOOK_S = 0.05
_USERS = """
INSERT INTO users (user_id, payer, tier, anchor_day, zone) SELECT u, u, 'free', 1, 'UTC'
FROM unnest($1::text[]) AS u
"""
_KEYS = "INSERT INTO api_keys (key_id, user_id, digest) VALUES ($1, $2, $3)"


@dataclass
class Seen:
    """What the storm took: `waits_s` of each user, answers 503, reads at once, memory."""

    waits_s: list[float] = field(default_factory=list)
    refused: int = 0
    at_once: int = 0
    at_once_max: int = 0
    reads: int = 0
    rss_max: int = 0

    def watch(self, ledger: Any) -> None:
        """Count how many sums are read at once."""
        sums: Callable[..., Awaitable[Any]] = ledger.sums

        async def watched(*args: Any) -> Any:
            self.reads += 1
            self.at_once += 1
            self.at_once_max = max(self.at_once_max, self.at_once)
            try:
                return await sums(*args)
            finally:
                self.at_once -= 1

        ledger.sums = watched

    async def weigh_forever(self) -> None:
        while True:
            self.rss_max = max(self.rss_max, _rss_bytes())
            await asyncio.sleep(_LOOK_S)


@dataclass
class Gateway:
    """The parts that a call passes."""

    worker: Worker
    stores: Stores
    seen: Seen = field(default_factory=Seen)

    async def admit(self, key: str) -> Admitted:
        rid = make_rid(self.stores.clock.now_ms(), os.urandom(10))
        credential, request = self.worker.identities.credential(key), judge_chat(_BODY)
        call = Call(rid, CHAT, credential, request, len(_BODY), 0.0, None, 0, None)
        return await self.worker.admission.admit(call)

    async def call(self, key: str) -> None:
        """One call to its end, asked again for as long as it is answered 503."""
        begun_s = time.monotonic()
        while True:
            try:
                admitted = await self.admit(key)
            except Refused as refused:
                self.seen.refused += 1
                await asyncio.sleep(refused.retry_after_s or 1)
            else:
                break
        self.seen.waits_s.append(time.monotonic() - begun_s)
        await self.worker.settlements.settle(admitted.hold, _ENDING)


async def main(arguments: argparse.Namespace) -> None:
    """Print what it took."""
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        settings = replace(load(Path("config.yaml"), {}), state_dir=Path(place))
        async with embedded_stores(settings):
            await prepare_ledger(settings)
            keys = await _people(settings, arguments.users)
            metrics = ProxyMetrics(settings.models)
            async with open_stores(settings, metrics, "bench", 5.0) as stores:
                kept_in = (stores, SpillFiles(Path(place) / "spill", "bench", metrics))
                tokenizer = loaded_tokenizer(settings)
                worker = Worker(settings, kept_in, metrics, tokenizer, (DirectUpstream({}), None))
                await _storm(settings, Gateway(worker, stores), keys)


async def _storm(settings: Settings, gateway: Gateway, keys: list[str]) -> None:
    stores, seen = gateway.stores, gateway.seen
    await stores.shards.join("storm")
    tasks = [
        spawn(stores.shards.watch_forever(stores.unguarded), "watch shards"),
        spawn(run_forever(drain_of(settings, stores, JobsMetrics()), asyncio.Lock()), "drain"),
        spawn(seen.weigh_forever(), "weigh"),
    ]
    turns = asyncio.Semaphore(50)

    async def first(key: str) -> None:
        async with turns:
            await gateway.call(key)

    begun_s = time.monotonic()
    await asyncio.gather(*(first(key) for key in keys))
    await gateway.worker.settlements.confirmed()
    print(f"first calls: {time.monotonic() - begun_s:.1f} s, {seen.refused} answered 503")
    seen.watch(stores.ledger)
    seen.refused, seen.waits_s, before = 0, [], _rss_bytes()
    async with redis.asyncio.Redis.from_url(redis_url_of(settings)) as client:
        await client.flushall()
    begun_s, seen.rss_max, cpu_s = time.monotonic(), before, time.process_time()
    await asyncio.gather(*(gateway.call(key) for key in keys))
    taken_s, waits = time.monotonic() - begun_s, sorted(seen.waits_s)
    print(
        f"storm: {len(keys):,} users at once, all served after {taken_s:.1f} s; waited p50 "
        f"{waits[len(waits) // 2]:.1f} s, p99 {waits[len(waits) * 99 // 100]:.1f} s; "
        f"{seen.refused} answers 503"
    )
    print(
        f"ledger: {seen.reads} sums read, at most {seen.at_once_max} at once; memory: "
        f"{before >> 20} MB before, {seen.rss_max >> 20} MB at most; "
        f"cpu of this process {time.process_time() - cpu_s:.1f} s"
    )
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _people(settings: Settings, users: int) -> list[str]:
    """So many users, and their keys."""
    pepper, names = pepper_of(settings), [f"user-{number:06d}" for number in range(users)]
    keys = [format_key(os.urandom(32)) for _ in names]
    rows = [
        (f"key-{name}", name, key_digest(key, pepper))
        for name, key in zip(names, keys, strict=True)
    ]
    connection = await asyncpg.connect(ledger_url_of(settings))
    await connection.execute(_USERS, names)
    await connection.executemany(_KEYS, rows)
    await connection.close()
    return keys


def _rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="everybody at once after Redis was emptied")
    parser.add_argument("--users", type=int, default=5000)
    asyncio.run(main(parser.parse_args()))
