"""Several proxy workers on one port: all of them serve, and the death of one is felt by few."""

from __future__ import annotations

import http.client
import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from threading import Event
from urllib.parse import urlsplit

import pytest

from gateway.adapters.embedded import postgres_url, redis_url
from tests.gateway.loopback import ask
from tests.gateway.running_gateway import MakeGateway, RunningGateway, processes_of, prompt
from tests.gateway.waiting_for import until

WORKERS = ("proxy-1", "proxy-2")
QUICK_LEASE = {"ms": 2000, "grace_ms": 500, "heartbeat_ms": 200}


def connection_to(gateway: RunningGateway) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(gateway.proxy).netloc, timeout=20)


def call(connection: http.client.HTTPConnection, key: str) -> int:
    """One chat on a connection that is kept; the status."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    body = json.dumps(prompt("Hello")).encode()
    connection.request("POST", "/v1/chat/completions", body, headers)
    response = connection.getresponse()
    response.read()
    return response.status


def admitted(gateway: RunningGateway) -> float:
    return gateway.metric("decisions_total", decision="admitted", route="chat")


def test_a_worker_that_is_killed_under_load_is_replaced_while_the_others_serve(
    make_gateway: MakeGateway,
) -> None:
    gateway = make_gateway(workers=2, lease=QUICK_LEASE)
    gateway.stand_in.reset()
    gateway.start()
    user, key = gateway.new_user("full")
    first, second = (gateway.child(name) for name in WORKERS)
    enough, stop = Event(), Event()

    def keep_calling() -> tuple[int, int]:
        """Calls answered, and connections lost: then a new one is made, as clients do."""
        answered = lost = 0
        while not stop.is_set():
            with closing(connection_to(gateway)) as connection:
                try:
                    for _ in range(5):
                        assert call(connection, key) == 200
                        answered += 1
                except (OSError, http.client.HTTPException):
                    lost += 1
            if answered >= 20:
                enough.set()
        return answered, lost

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(keep_calling) for _ in range(4)]
        assert enough.wait(60)
        before = admitted(gateway)
        os.kill(first, signal.SIGKILL)
        until(lambda: admitted(gateway) >= before + 20, 60, "calls to go on")
        until(lambda: ask(f"{gateway.ops}/readyz").status == 200, 30, "both to be ready again")
        stop.set()
        results = [client.result(60) for client in clients]
    assert gateway.child("proxy-2") == second
    assert gateway.child("proxy-1") != first
    answered, lost = (sum(each) for each in zip(*results, strict=True))
    assert lost <= 2 * len(clients), "only connections to the worker that died were lost"
    assert answered >= 40
    until(lambda: not gateway.shown(user)["open_holds"], 30, "holds of the dead to end")
    verdict = gateway.cli("ledger", "verify", "--upstream", gateway.stand_in.url)
    assert verdict["agrees"]
    (line,) = [line for line in verdict["lines"] if line["user"] == user]
    assert (line["redis_off"], line["upstream_off"]) == (0, 0)
    assert "the proxy-1 process ended with code -9 and is started again" in (
        gateway.stderr.read_text()
    )
    gateway.stop()


def test_both_workers_serve_are_asked_if_they_are_ready_and_count_as_one(
    make_gateway: MakeGateway,
) -> None:
    gateway = make_gateway().start("--workers", "2")
    user, key = gateway.new_user("full")
    checks = ask(f"{gateway.ops}/readyz").json["checks"]
    assert checks == {"proxy-1": "ok", "proxy-2": "ok", "jobs": "ok"}
    # Which worker has a connection is the kernel's choice: of 32 one gets all once in 2^31 times.
    with ExitStack() as stack:
        connections = [stack.enter_context(closing(connection_to(gateway))) for _ in range(32)]
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda each: call(each, key), connections)) == {200}
        both = admitted(gateway)
        assert both == 32
        dead = gateway.child("proxy-2")
        os.kill(dead, signal.SIGKILL)
        until(lambda: dead not in processes_of(gateway.place), 10, "the worker to end")
        assert admitted(gateway) == both
        kept = [partial(call, each, key) for each in connections]
        alive = 0
        for again in kept:
            try:
                alive += again() == 200
            except (OSError, http.client.HTTPException):
                continue
    assert 0 < alive < 32
    until(lambda: ask(f"{gateway.ops}/readyz").status == 200, 30, "both to be ready again")
    assert admitted(gateway) == both + alive
    gateway.ledger_rows(user, 32 + alive)
    gateway.stop()


def test_another_gateway_may_not_join_the_port_of_this_one(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(workers=2).start()
    taken = urlsplit(gateway.proxy).netloc
    late = make_gateway(
        workers=2,
        listen={"proxy": taken},
        redis={"url": redis_url(gateway.state_dir)},
        ledger={"url": postgres_url(gateway.state_dir)},
        identity={"keys": {"pepper": "not-the-pepper-of-the-other"}},
    )
    said = late.command("serve")
    assert said.returncode == 1
    assert f"quota-gateway: cannot listen on {taken}: " in said.stderr
    late.nothing_runs()
    assert ask(f"{gateway.ops}/readyz").status == 200


def test_when_the_process_that_starts_the_workers_dies_all_end(make_gateway: MakeGateway) -> None:
    gateway = make_gateway().start()
    os.kill(gateway.child("family"), signal.SIGKILL)
    assert gateway.ended() == 1
    gateway.nothing_runs()
    assert "the process that starts the workers ended by itself" in gateway.stderr.read_text()


@pytest.mark.parametrize("number", ["0", "65", "two", "-1", "²"])
def test_a_number_of_workers_that_cannot_be_is_refused(
    gateway: RunningGateway, number: str
) -> None:
    said = gateway.command("serve", f"--workers={number}")
    assert said.returncode == 2
    assert "expected a whole number from 1 to 64" in said.stderr
