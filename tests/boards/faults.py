"""Real faults, and the alerts that they must raise and let go of: `make faults`.

A gateway under calls, its stores beside it, a real Prometheus with the alerts that ship, whose
waiting times are divided by twenty. One fault after the other: Redis and Postgres stopped and
frozen, the whole gateway frozen, the quota not enforced any more, the mail server down. Prints each
alert with the seconds to its firing and to its end; ends with 1 when one does not come or go.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import redis

from gateway.adapters.embedded import start_postgres, start_redis
from gateway.adapters.redis_store.keys import account_keys
from tests.boards.busy_gateway import Busy, busy_gateway, keep_busy
from tests.boards.prometheus_process import PrometheusProcess
from tests.chaos.stores import Store
from tests.gateway.quota_calls import report
from tests.gateway.waiting_for import until
from tests.new_ledger import put_new_ledger

_WAITS = 20
_FIRES_S, _CLEARS_S = 90.0, 150.0
_CANARY = "~canary"
_ROOM_BEYOND = "-900000"


@dataclass
class World:
    """A busy gateway, and the stores that it does not own."""

    redis: Store
    postgres: Store
    busy: Busy


@contextmanager
def stores(place: Path) -> Iterator[tuple[Store, Store]]:
    """Redis and Postgres, while the block lasts."""
    put_new_ledger(place)
    opened = Store(partial(start_redis, place)), Store(partial(start_postgres, place))
    for store in opened:
        asyncio.run(store.start())
    try:
        yield opened
    finally:
        for store in opened:
            asyncio.run(store.stop())


@contextmanager
def stopped(store: Store) -> Iterator[None]:
    """It is gone, and comes back with what it had."""
    asyncio.run(store.stop())
    try:
        yield
    finally:
        asyncio.run(store.start())


@contextmanager
def frozen(store: Store) -> Iterator[None]:
    """It keeps its connections and answers nothing."""
    store.freeze()
    try:
        yield
    finally:
        store.go_on()


@contextmanager
def gateway_frozen(world: World) -> Iterator[None]:
    os.kill(world.busy.gateway.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(world.busy.gateway.pid, signal.SIGCONT)


@contextmanager
def not_enforced(world: World) -> Iterator[None]:
    """Somebody has written into Redis: the canary's account has room that nobody granted, so a call
    over the limit goes through."""
    key = account_keys(_CANARY, world.busy.gateway.settings.redis.shards).account
    with redis.Redis.from_url(world.redis.server.url) as client:

        def adjust(tokens: str) -> str:
            held: Any = client.hget(key, "a")
            assert held, "there is no canary"
            fields = held.decode().split(" ")
            before, fields[4] = fields[4], tokens
            client.hset(key, "a", " ".join(fields))
            return str(before)

        before = adjust(_ROOM_BEYOND)
        try:
            yield
        finally:
            adjust(before)


@contextmanager
def mail_server_down(world: World) -> Iterator[None]:
    """While somebody has to be told that 95 % are used."""
    busy = world.busy
    busy.mail_server.stop()
    try:
        assert report(busy.gateway, busy.keys["warned"], total_tokens=15_500).status == 200
        yield
    finally:
        busy.mail_server.start()


@dataclass(frozen=True)
class Fault:
    alert: str
    what: str
    begin: Callable[[World], AbstractContextManager[None]]


FAULTS = (
    Fault("QuotaRedisAway", "Redis stopped", lambda world: stopped(world.redis)),
    Fault("QuotaRedisAway", "Redis frozen", lambda world: frozen(world.redis)),
    Fault("QuotaPostgresAway", "Postgres stopped", lambda world: stopped(world.postgres)),
    Fault("QuotaPostgresAway", "Postgres frozen", lambda world: frozen(world.postgres)),
    Fault("QuotaGatewayDown", "gateway frozen", gateway_frozen),
    Fault("QuotaNotEnforced", "quota not enforced", not_enforced),
    Fault("QuotaWayAway", "mail server down", mail_server_down),
)


def show(fault: Fault, world: World, prometheus: PrometheusProcess) -> None:
    """Begin it, see the alert, end it, see that end. AssertionError names what did not come."""

    def fires() -> bool:
        return fault.alert in prometheus.firing()

    assert not fires(), f"{fault.alert} fires before its fault"
    began_s = time.monotonic()
    with fault.begin(world):
        until(fires, _FIRES_S, f"{fault.alert} to fire")
        fired_s = time.monotonic()
    until(lambda: not fires(), _CLEARS_S, f"{fault.alert} to clear")
    cleared_s = time.monotonic() - fired_s
    print(f"{fault.alert:20} {fault.what:20} {fired_s - began_s:8.1f} {cleared_s:8.1f}", flush=True)


def show_all(world: World, place: Path, names: list[str]) -> int:
    """Those of `names`, or each; how many failed."""
    missed = 0
    prometheus = PrometheusProcess(place, world.busy.gateway.ops, _WAITS)
    try:
        until(lambda: prometheus.query("quota:gateways:up"), 30, "the first scrape")
        print(f"{'alert':20} {'fault':20} {'fires, s':>8} {'ends, s':>8}")
        with keep_busy(world.busy):
            for fault in FAULTS:
                if names and fault.alert not in names:
                    continue
                try:
                    show(fault, world, prometheus)
                except AssertionError as error:
                    print(f"{fault.alert:20} {fault.what:20} FAILED: {error}", flush=True)
                    missed += 1
    finally:
        prometheus.stop()
    return missed


def main(names: list[str]) -> int:
    os.environ["NO_PROXY"] = "*"
    with tempfile.TemporaryDirectory(prefix="qg-faults-") as temporary:
        place = Path(temporary)
        with stores(place / "stores") as (of_redis, of_postgres):
            theirs = {
                "redis": {"url": of_redis.server.url},
                "ledger": {"url": of_postgres.server.url},
                "identity": {"keys": {"pepper": "p" * 32}},
            }
            with busy_gateway(place, theirs) as busy:
                missed = show_all(World(of_redis, of_postgres, busy), place / "prometheus", names)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
