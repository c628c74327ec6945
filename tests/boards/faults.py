"""Real faults, and the alerts that they must raise and let go of: `make faults`.

A gateway under calls, a real Prometheus with the alerts that ship, whose waiting times are divided
by twenty. One fault after the other: Redis frozen, Postgres frozen, the whole gateway frozen, the
quota not enforced any more, the mail server down. Prints each alert with the seconds to its firing
and to its end; ends with 1 when one does not come or does not go.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from gateway.adapters.embedded import redis_url
from gateway.adapters.redis_store.keys import account_keys
from tests.boards.busy_gateway import Busy, busy_gateway, keep_busy
from tests.boards.prometheus_process import PrometheusProcess
from tests.gateway.quota_calls import report
from tests.gateway.running_gateway import processes_of
from tests.gateway.waiting_for import until

_WAITS = 20
_FIRES_S, _CLEARS_S = 90.0, 150.0
_CANARY = "~canary"
_ROOM_BEYOND = "-900000"


@contextmanager
def frozen(pids: list[int]) -> Iterator[None]:
    """They keep their connections and answer nothing."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _processes(busy: Busy, name: str) -> list[int]:
    found = [pid for pid, said in processes_of(busy.gateway.place).items() if name in said]
    assert found, name
    return found


def redis_frozen(busy: Busy) -> AbstractContextManager[None]:
    return frozen(_processes(busy, "redis-server"))


def postgres_frozen(busy: Busy) -> AbstractContextManager[None]:
    return frozen(_processes(busy, "postgres"))


def gateway_frozen(busy: Busy) -> AbstractContextManager[None]:
    return frozen([busy.gateway.pid])


@contextmanager
def not_enforced(busy: Busy) -> Iterator[None]:
    """Somebody has written into Redis: the canary's account has room that nobody granted, so a call
    over the limit goes through."""
    key = account_keys(_CANARY, busy.gateway.settings.redis.shards).account
    with redis.Redis.from_url(redis_url(busy.gateway.state_dir)) as client:

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
def mail_server_down(busy: Busy) -> Iterator[None]:
    """While somebody has to be told that 95 % are used."""
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
    begin: Callable[[Busy], AbstractContextManager[None]]


FAULTS = (
    Fault("QuotaRedisAway", "Redis frozen", redis_frozen),
    Fault("QuotaPostgresAway", "Postgres frozen", postgres_frozen),
    Fault("QuotaGatewayDown", "gateway frozen", gateway_frozen),
    Fault("QuotaNotEnforced", "quota not enforced", not_enforced),
    Fault("QuotaWayAway", "mail server down", mail_server_down),
)


def show(fault: Fault, busy: Busy, prometheus: PrometheusProcess) -> None:
    """Begin it, see the alert, end it, see that end. AssertionError names what did not come."""

    def fires() -> bool:
        return fault.alert in prometheus.firing()

    assert not fires(), f"{fault.alert} fires before its fault"
    began_s = time.monotonic()
    with fault.begin(busy):
        until(fires, _FIRES_S, f"{fault.alert} to fire")
        fired_s = time.monotonic()
    until(lambda: not fires(), _CLEARS_S, f"{fault.alert} to clear")
    cleared_s = time.monotonic() - fired_s
    print(f"{fault.alert:20} {fault.what:20} {fired_s - began_s:8.1f} {cleared_s:8.1f}", flush=True)


def main(names: list[str]) -> int:
    os.environ["NO_PROXY"] = "*"
    missed = 0
    with tempfile.TemporaryDirectory(prefix="qg-faults-") as temporary:
        place = Path(temporary)
        with busy_gateway(place) as busy:
            prometheus = PrometheusProcess(place / "prometheus", busy.gateway.ops, _WAITS)
            try:
                until(lambda: prometheus.query("quota:gateways:up"), 30, "the first scrape")
                print(f"{'alert':20} {'fault':20} {'fires, s':>8} {'ends, s':>8}")
                with keep_busy(busy):
                    for fault in FAULTS:
                        if names and fault.alert not in names:
                            continue
                        try:
                            show(fault, busy, prometheus)
                        except AssertionError as error:
                            print(f"{fault.alert:20} {fault.what:20} FAILED: {error}", flush=True)
                            missed += 1
            finally:
                prometheus.stop()
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
