"""What a store's absence costs callers, and how soon all is as before.

`frozen`: Redis stands still (SIGSTOP) and goes on, several times: how long calls wait in the first
second and after it, and from its return to the first call that is admitted and to the last hold
that is settled. `away`: Postgres is stopped for a while under a steady load: what callers notice,
and how fast the ledger catches up while the load goes on.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from bench.lanes import Lane, models_of
from bench.load import Load, Outcome, Pace
from bench.measure import run_load
from bench.processes import BenchError
from bench.requests import Shape, requests
from bench.rig import Subject, started_upstream
from bench.stack import GatewayStack
from bench.table import Table
from gateway.adapters.embedded import start_postgres
from gateway.adapters.redis_store.clients import open_client
from gateway.adapters.redis_store.leases import RedisLeases
from gateway.ports.tasks import spawn

RATE = 200
_CONNECTIONS, _USERS = 64, 128
_FROZEN_S, _POLL_S, _BACK_S = 5.0, 0.01, 30.0
_WARMING = 10  # a machine with other work to do may keep Redis waiting at first
_BEFORE_S, _CATCHING_UP_S = 20.0, 60.0


@dataclass(frozen=True, slots=True)
class _Running:
    """A gateway with an upstream, and requests of users it knows."""

    gateway: GatewayStack
    prepared: Sequence[bytes]

    @property
    def subject(self) -> Subject:
        return Subject("gateway", self.gateway.port)

    def load(self, seconds: float) -> Outcome:
        """RATE requests a second, whatever comes of them."""
        return run_load(self.subject, self.prepared, Pace(_CONNECTIONS, seconds, RATE))


@contextmanager
def _running(place: Path, changes: dict[str, dict[str, Any]]) -> Iterator[_Running]:
    with ExitStack() as stack:
        url, _ = started_upstream(stack, place)
        lane = Lane("plain", url)
        gateway = GatewayStack(place, (lane,), {}, changes)
        stack.callback(gateway.stop)
        gateway.start()
        keys = gateway.new_keys(_USERS, "room")
        running = _Running(gateway, requests(Shape(model=models_of((lane,))["plain"]), keys))
        for _ in range(_WARMING):
            outcome = running.load(1.0)
            if not outcome.failed:
                break
        else:
            statuses, broken = dict(outcome.statuses), outcome.broken
            raise BenchError(f"calls fail before anything is away: {statuses}, {broken} broken")
        yield running


# --- Redis stands still ----------------------------------------------------------------------


def frozen(rounds: int) -> dict[str, Any]:
    """Milliseconds that calls wait, and seconds from the return of Redis; of several rounds."""
    with (
        tempfile.TemporaryDirectory(prefix="qg-bench-") as home,
        _running(Path(home), {"redis": {"deadline_ms": 150}}) as running,
    ):
        found = [_frozen_once(running) for _ in range(rounds)]
        if not running.gateway.agrees():
            raise BenchError("ledger verify: the books differ after Redis stood still")
    return {
        "rounds": rounds,
        "statuses": sorted({status for each in found for status in each["statuses"]}),
        "before_p99_ms": [each["before_p99_ms"] for each in found],
        "first_second_p99_ms": [each["first_p99_ms"] for each in found],
        "after_p99_ms": [each["after_p99_ms"] for each in found],
        "admitted_s": [each["admitted_s"] for each in found],
        "settled_s": [each["settled_s"] for each in found],
    }


def _frozen_once(running: _Running) -> dict[str, Any]:
    server = _redis_of(running.gateway)
    before = running.load(1.0)
    os.kill(server, signal.SIGSTOP)
    try:
        first = running.load(1.0)
        after = running.load(_FROZEN_S - 1.0)
    finally:
        os.kill(server, signal.SIGCONT)
    admitted_s, settled_s = asyncio.run(_until_as_before(running))
    return {
        "before_p99_ms": _p99_ms(before),
        "statuses": [*first.statuses, *after.statuses],
        "first_p99_ms": _p99_ms(first),
        "after_p99_ms": _p99_ms(after),
        "admitted_s": admitted_s,
        "settled_s": settled_s,
    }


def _redis_of(gateway: GatewayStack) -> int:
    for pid in gateway.beside():
        if Path(f"/proc/{pid}/comm").read_text().strip() in ("redis-server", "valkey-server"):
            return pid
    raise BenchError("the gateway has no Redis of its own")


async def _until_as_before(running: _Running) -> tuple[float, float]:
    """Seconds from now until a call is admitted, and until no hold is open any more."""
    began_s = time.perf_counter()
    admitted = spawn(_until_admitted(running), "admitted")
    client = open_client(running.gateway.redis_url)
    leases = RedisLeases(client, running.gateway.shards)
    try:
        async with asyncio.timeout(_BACK_S):
            while True:
                if sum([await leases.count(shard) for shard in range(leases.shards)]) == 0:
                    settled_s = time.perf_counter() - began_s
                    if admitted.done():
                        return await admitted - began_s, settled_s
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise BenchError(f"not as before {_BACK_S:g} s after Redis went on") from None
    finally:
        await client.aclose()


async def _until_admitted(running: _Running) -> float:
    while True:
        pace = Pace(1, 1.0, RATE, requests=1)
        outcome = await Load("127.0.0.1", running.subject.port, running.prepared, pace).run()
        if outcome.answered:
            return time.perf_counter()
        await asyncio.sleep(_POLL_S)


# --- Postgres is away ------------------------------------------------------------------------


def away(minutes: float) -> dict[str, Any]:
    """What callers notice of Postgres being stopped for so long, and how the ledger catches up."""
    with tempfile.TemporaryDirectory(prefix="qg-bench-") as home:
        place = Path(home)
        (place / "stores").mkdir()
        server = asyncio.run(start_postgres(place / "stores"))
        try:
            with _running(place, _own_ledger(server.url)) as running:
                before = running.load(_BEFORE_S)
                asyncio.run(server.stop())
                during = running.load(60 * minutes)
                server = asyncio.run(start_postgres(place / "stores"))
                caught_up = asyncio.run(_catch_up(running, server.url))
                if not running.gateway.agrees():
                    raise BenchError("ledger verify: the books differ after Postgres was away")
        finally:
            asyncio.run(server.stop())
    return {
        "minutes": minutes,
        "before": _noticed(before),
        "during": _noticed(during),
        **caught_up,
    }


def _own_ledger(url: str) -> dict[str, dict[str, Any]]:
    """A ledger that the gateway does not start asks for a pepper of one's own."""
    return {"ledger": {"url": url}, "identity": {"keys": {"pepper": "a-pepper-of-the-bench"}}}


async def _catch_up(running: _Running, url: str) -> dict[str, Any]:
    """Under load: from the moment at which Postgres can be used, until nothing waits any more."""
    began_s = time.perf_counter()
    pace = Pace(_CONNECTIONS, _CATCHING_UP_S, RATE)
    load = Load("127.0.0.1", running.subject.port, running.prepared, pace)
    loading = spawn(load.run(), "load")
    session = await asyncpg.connect(url)
    try:
        booked = [(0.0, await _booked(session))]
        while not loading.done():
            booked.append((time.perf_counter() - began_s, await _booked(session)))
            await asyncio.sleep(0.1)
    finally:
        await session.close()
    outcome = await loading
    return {"noticed_after": _noticed(outcome), **_pace_of(booked)}


async def _booked(session: Any) -> int:
    return int(await session.fetchval("SELECT count(*) FROM ledger WHERE kind = 'usage'"))


def _pace_of(booked: Sequence[tuple[float, int]]) -> dict[str, float]:
    """The backlog is gone when the ledger grows no faster than calls come in: from there backwards
    the line of arrivals is RATE a second, and what stands above it has come from the backlog."""
    last_s, last = booked[-1]
    start = booked[0][1]
    first_s = next(at_s for at_s, rows in booked if rows > start)
    caught_s, rows = next(
        (at_s, rows) for at_s, rows in booked if rows >= last - RATE * (last_s - at_s) - RATE
    )
    taken_s = max(caught_s - first_s, 0.1)
    return {
        "first_row_s": first_s,
        "caught_up_s": caught_s,
        "rows": rows - start,
        "rows_per_s": (rows - start) / taken_s,
    }


# --- shown -----------------------------------------------------------------------------------


def _p99_ms(outcome: Outcome) -> float:
    latencies_s = sorted(outcome.latencies_s)
    return 1000 * latencies_s[int(0.99 * len(latencies_s))] if latencies_s else float("nan")


def _noticed(outcome: Outcome) -> dict[str, Any]:
    return {
        "answered": outcome.answered,
        "failed": outcome.failed,
        "p50_ms": 1000 * statistics.median(outcome.latencies_s),
        "p99_ms": _p99_ms(outcome),
    }


def frozen_table(facts: dict[str, Any]) -> Table:
    """The median and the worst of the rounds, beside what is promised."""
    promised = {
        "before_p99_ms": ("a whole call before it, p99, ms", ""),
        "first_second_p99_ms": ("wait in the first second, p99, ms", "200"),
        "after_p99_ms": ("wait after it, p99, ms", "5"),
        "admitted_s": ("from its return to the first call admitted, s", "2"),
        "settled_s": ("from its return to the last hold settled, s", "2"),
    }
    rows = [
        (words, f"{statistics.median(facts[name]):.2f}", f"{max(facts[name]):.2f}", most)
        for name, (words, most) in promised.items()
    ]
    statuses = ", ".join(str(status) for status in facts["statuses"])
    notes = (
        f"{facts['rounds']} rounds of {_FROZEN_S:g} s at {RATE} requests/s, `redis.deadline_ms` "
        f"150; calls meanwhile were answered {statuses}. `ledger verify` was clean.",
    )
    return Table("Redis stands still", ("", "median", "worst", "promised"), rows, notes)


def away_table(facts: dict[str, Any]) -> Table:
    """Before, during and after."""
    names = {"before": "before", "during": "while it was away", "noticed_after": "after it came"}
    rows = [
        (
            words,
            f"{facts[name]['answered']:,}",
            f"{facts[name]['failed']:,}",
            f"{facts[name]['p50_ms']:.2f}",
            f"{facts[name]['p99_ms']:.2f}",
        )
        for name, words in names.items()
    ]
    notes = (
        f"Stopped for {facts['minutes']:g} min at {RATE} requests/s. The first row was booked "
        f"{facts['first_row_s']:.1f} s after Postgres could be used, the last of the backlog after "
        f"{facts['caught_up_s']:.1f} s: {facts['rows']:,} rows, {facts['rows_per_s']:,.0f} a "
        f"second, {facts['rows_per_s'] / RATE:.1f} times what came in. `ledger verify` was clean.",
    )
    columns = ("Postgres away", "answered", "failed", "p50 ms", "p99 ms")
    return Table("Postgres away", columns, rows, notes)
