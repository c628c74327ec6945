"""What `/readyz` says of each process, when one of them stands still; and clients that do too."""

from __future__ import annotations

import json
import os
import signal
import socket
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from tests.gateway.loopback import Reply, ask
from tests.gateway.running_gateway import MakeGateway, RunningGateway, prompt
from tests.gateway.waiting_for import until

READERS = 8
# 16,000 chunks of some 300 bytes: 5 MB for each reader, 40 MB in all.
WANTED_TOKENS = 64_000
GROWTH_MIB_MAX = 16
LARGE_MODEL = "gpt-6-luna"


def ready(gateway: RunningGateway) -> Reply:
    return ask(f"{gateway.ops}/readyz")


def said(gateway: RunningGateway, words: str) -> str | None:
    """What `/readyz` says of the worker that was stopped, once these words are in it."""
    reply = ready(gateway)
    state = str(reply.json["checks"]["proxy-2"])
    assert (reply.status == 200) == (state == "ok"), reply.text
    return state if words in state else None


def test_a_worker_that_stands_still_is_not_ready_and_neither_when_it_has_just_gone_on(
    make_gateway: MakeGateway,
) -> None:
    gateway = make_gateway(workers=2).start()
    until(partial(said, gateway, "ok"), 30, "all to be ready")
    stopped = gateway.child("proxy-2")
    os.kill(stopped, signal.SIGSTOP)
    try:
        until(partial(said, gateway, "did not answer within 1 s"), 30, "its silence to be noticed")
        # For a second more: this question took one, and the loop is late by what is beyond its own.
        until(partial(said, gateway, "did not answer within 1 s"), 30, "a second question")
    finally:
        os.kill(stopped, signal.SIGCONT)
    late = until(partial(said, gateway, "the event loop was late by"), 30, "the reason")
    assert "within the last 5 s" in late
    assert gateway.metric("loop_lag_seconds") > 1
    until(partial(said, gateway, "ok"), 30, "it to be ready again")
    gateway.stop()


def rss_mib(pid: int) -> float:
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return int(fields["VmRSS"].split()[0]) / 1024


def asking_without_reading(gateway: RunningGateway, key: str) -> socket.socket:
    """A connection that has asked for a long stream, and reads nothing of it."""
    place = urlsplit(gateway.proxy)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(30)
    connection.connect((place.hostname, place.port))
    asked = prompt(f"@stand-in write={WANTED_TOKENS}", model=LARGE_MODEL, stream=True)
    asked["max_completion_tokens"] = WANTED_TOKENS
    body = json.dumps(asked).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {place.netloc}\r\n"
        f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    return connection


def test_clients_that_do_not_read_are_dropped_booked_and_cost_little_memory(
    make_gateway: MakeGateway,
) -> None:
    gateway = make_gateway(clients={"unread_s": 2}, client_gone={"drain_s": 0}).start()
    user, key = gateway.new_user("full")
    assert gateway.chat(key, "Hello").status == 200
    worker = gateway.child("proxy-1")
    before_mib, most_mib = rss_mib(worker), 0.0
    with ExitStack() as stack:
        for _ in range(READERS):
            stack.enter_context(asking_without_reading(gateway, key))

        def all_are_dropped() -> bool:
            nonlocal most_mib
            most_mib = max(most_mib, rss_mib(worker))
            return (
                gateway.stand_in.served(user)["requests"] == 1 + READERS
                and not (gateway.shown(user)["open_holds"])
            )

        until(all_are_dropped, 60, "every reader to be dropped")
    rows = [row for row in gateway.ledger_rows(user, 1 + READERS) if row["stream"]]
    assert {(row["outcome"], row["quality"]) for row in rows} == {("client_gone", "partial")}
    assert all(0 < row["output_tokens"] < WANTED_TOKENS for row in rows)
    assert most_mib - before_mib < GROWTH_MIB_MAX
    assert "a client does not read and is dropped" in gateway.stderr.read_text()
