"""How fast the drain books what lies in the outbox, and how late it is while events come in.

`PYTHONPATH=. python bench/drain.py --rows 100000` starts a Redis and a Postgres of its own, fills
the outbox with events as the settle script writes them, of many payers over all shards, and lets
the product's own drain work until nothing is left. Then events come at a steady rate from another
process, and each one's lag is taken: from its stream id, which is the time of its settlement, to
the moment at which the drain knows of the commit. CPU is that of each process, from /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import redis

from gateway.adapters.prometheus_jobs_metrics import JobsMetrics
from gateway.adapters.prometheus_metrics import ProxyMetrics
from gateway.adapters.redis_store.keys import shard_keys
from gateway.app.embedded import embedded_stores, redis_url_of
from gateway.app.jobs_process import drain_of
from gateway.app.ledger_schema import prepare_ledger
from gateway.app.stores import open_stores
from gateway.config import load
from gateway.core.event import UsageEvent, encode_event
from gateway.core.identity import shard_of
from gateway.core.rid import make_rid
from gateway.jobs.drain import Drain
from gateway.ports.ledger import BookReply
from gateway.ports.tasks import spawn

SHARDS = 16
_AT_ONCE = 500
_TICK_S = 0.01
_HERTZ = os.sysconf("SC_CLK_TCK")
_DAY_MS = 86_400_000


class Feeder:
    """Writes events of calls in the form of the settle script, ids given by the server."""

    def __init__(self, url: str, payers: int) -> None:
        self._client: Any = redis.Redis.from_url(url, protocol=2)
        self._keys = [shard_keys(shard).outbox for shard in range(SHARDS)]
        self._names = [f"user-{number:012d}" for number in range(payers)]
        self._shards = [shard_of(name, SHARDS) for name in self._names]
        self._period_ms = int(time.time() * 1000) // _DAY_MS * _DAY_MS
        self._written = 0

    def write(self, events: int) -> None:
        """So many events, each of a payer drawn at random."""
        for start in range(0, events, _AT_ONCE):
            pipe = self._client.pipeline(transaction=False)
            for _ in range(min(_AT_ONCE, events - start)):
                self._written += 1
                payer = random.randrange(len(self._names))
                pipe.xadd(
                    self._keys[self._shards[payer]],
                    {
                        "e": encode_event(self._event(self._names[payer])),
                        "b": f"1 {self._written} {self._period_ms} 1150 420 0 0 0 0 0 0 0 -",
                    },
                )
            pipe.execute()

    def write_steadily(self, rate: int, seconds: float) -> None:
        """`rate` events a second, a few at a time."""
        begun, written = time.monotonic(), 0
        while (passed := time.monotonic() - begun) < seconds:
            due = int(rate * passed) - written
            self.write(due)
            written += due
            time.sleep(_TICK_S)

    def _event(self, payer: str) -> UsageEvent:
        return UsageEvent(
            event_id=make_rid(int(time.time() * 1000), os.urandom(10)),
            payer=payer, user_id=payer, tier="free", route="chat", model="gpt-4o-mini",
            price_id="2026-11", charged_tokens=420, cost_nano_gbp=98_400, quality="measured",
            outcome="done", stream=True, tag="lesson-7", prompt_tokens=300, cached_tokens=128,
            output_tokens=120, service_tier="default", status=200,
            upstream_id="chatcmpl-0123456789abcdefghijklmnop",
        )  # fmt: skip


@dataclass
class Seen:
    """What passed through the drain, and the wall time of its parts."""

    lags_ms: list[int] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    dead: int = 0
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def watch(self, part: Any, *names: str) -> None:
        """From now on calls of these methods of `part` are seen."""
        for name in names:
            setattr(part, name, self._watched(name, getattr(part, name)))

    def _watched(self, name: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
        async def watched(*args: Any, **more: Any) -> Any:
            begun = time.perf_counter()
            reply = await call(*args, **more)
            self.seconds[name] += time.perf_counter() - begun
            if isinstance(reply, BookReply):
                now_ms = time.time_ns() // 1_000_000
                self.lags_ms += [now_ms - row.at_ms for row in reply.booked]
                self.batches.append(len(reply.booked))
                self.dead += reply.dead
            return reply

        return watched


async def main(arguments: argparse.Namespace) -> None:
    """Print both measurements."""
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        settings = replace(load(Path("config.yaml"), {}), state_dir=Path(place))
        async with embedded_stores(settings) as servers:
            await prepare_ledger(settings)
            async with open_stores(settings, ProxyMetrics(settings.models), "bench") as stores:
                drain, seen = drain_of(settings, stores, JobsMetrics()), Seen()
                seen.watch(stores.streams, "read")
                seen.watch(stores.ledger, "lock_shards", "cursors", "book")
                await drain.drain_all()  # notes the server: nothing is read twice from here on
                pids = [server.pid for server in servers]
                url = redis_url_of(settings)
                await _backlog(drain, seen, (url, pids), arguments)
                await _steady(drain, seen, (url, pids), arguments)
                assert not seen.dead, f"{seen.dead} events could not be booked"


async def _backlog(
    drain: Drain, seen: Seen, place: tuple[str, list[int]], arguments: argparse.Namespace
) -> None:
    url, pids = place
    Feeder(url, arguments.payers).write(arguments.rows)
    seen.seconds.clear()
    before, begun = _cpu_s(pids), time.perf_counter()
    while len(seen.lags_ms) < arguments.rows:
        rest_s = await drain.step()
        await asyncio.sleep(rest_s)
    taken_s = time.perf_counter() - begun
    after = _cpu_s(pids)
    print(
        f"backlog: {arguments.rows:,} rows of {arguments.payers:,} payers in {taken_s:.2f} s, "
        f"{arguments.rows / taken_s:,.0f} rows/s, in {len(seen.batches)} batches"
    )
    _print_cpu(before, after, arguments.rows)
    print("  wall:", ", ".join(f"{name} {spent:.2f} s" for name, spent in seen.seconds.items()))


async def _steady(
    drain: Drain, seen: Seen, place: tuple[str, list[int]], arguments: argparse.Namespace
) -> None:
    url, pids = place
    for rate in arguments.rates:
        seen.lags_ms.clear()
        seen.batches.clear()
        feeder = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "--feed", url, "--payers", str(arguments.payers),
            "--rates", str(rate), "--seconds", str(arguments.seconds),
        )  # fmt: skip
        before = _cpu_s(pids)
        feeding = spawn(feeder.wait(), "feed", awaited=True)
        while not feeding.done():
            rest_s = await drain.step()
            await asyncio.sleep(rest_s)
        await drain.drain_all()
        after = _cpu_s(pids)
        lags = sorted(seen.lags_ms)
        print(
            f"steady: {len(lags):,} events at {rate:,}/s, lag p50 {lags[len(lags) // 2]} ms, "
            f"p99 {lags[len(lags) * 99 // 100]} ms, worst {lags[-1]} ms, "
            f"{statistics.mean(seen.batches):.0f} rows a batch"
        )
        _print_cpu(before, after, len(lags))


def _print_cpu(before: list[float], after: list[float], rows: int) -> None:
    spent_s = [now - then for now, then in zip(after, before, strict=True)]
    names = ("jobs", "redis", "postgres", "all others on this machine")
    each = (
        f"{name} {spent:.2f} s ({1e6 * spent / rows:.1f} us a row)"
        for name, spent in zip(names, (*spent_s[:3], spent_s[3] - sum(spent_s[:3])), strict=True)
    )
    print("  cpu:", ", ".join(each), flush=True)


def _cpu_s(pids: Sequence[int]) -> list[float]:
    """CPU time of this process, of each of `pids` with its children, and of the whole machine."""
    ticks = dict.fromkeys(pids, 0)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with suppress(OSError):  # it ended meanwhile
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            parent, own, ended = int(fields[1]), fields[11:13], fields[13:15]
            for pid in {int(entry.name), parent} & ticks.keys():
                ticks[pid] += sum(map(int, own + (ended if pid != parent else [])))
    user, nice, system = map(int, Path("/proc/stat").read_text().split(maxsplit=4)[1:4])
    all_ticks = user + nice + system
    return [time.process_time(), *(ticks[pid] / _HERTZ for pid in pids), all_ticks / _HERTZ]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="the drain's rate and lag")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--payers", type=int, default=10_000)
    parser.add_argument("--rates", type=int, nargs="*", default=[2000], help="events a second")
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--feed", metavar="URL", help="only write events at the first rate")
    return parser.parse_args()


if __name__ == "__main__":
    told = _arguments()
    if told.feed:
        Feeder(told.feed, told.payers).write_steadily(told.rates[0], told.seconds)
    else:
        asyncio.run(main(told))
