"""SIGTERM: no new work, what runs ends or is ended with a word, and a SIGKILL loses nothing.

Streams are held at gates of the stand-in, so each moment at which a signal comes is an event that
the test saw: so many chunks read, a refusal answered, an end received.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest

from gateway.adapters.embedded import postgres_url, redis_url
from gateway.core.hold import UNSEEN_TOKENS_MAX
from tests.gateway.loopback import ask
from tests.gateway.running_gateway import MakeGateway, RunningGateway, prompt
from tests.gateway.waiting_for import until

PEPPER = {"keys": {"pepper": "the-pepper-of-those-who-stop"}}
QUICK_LEASE = {"ms": 2000, "grace_ms": 500, "heartbeat_ms": 200}
CHUNK_TOKENS, WHOLE_TOKENS, HELD_AT = 4, 80, 3
STREAMS = 4


class Stream:
    """One streamed answer, read event by event from a connection of its own."""

    def __init__(self, gateway: RunningGateway, key: str, words: str) -> None:
        self.tokens = 0
        self.error: dict[str, Any] = {}
        self._connection = connection_to(gateway)
        post(self._connection, key, prompt(words, stream=True))
        self._response = self._connection.getresponse()
        assert self._response.status == 200

    def close(self) -> None:
        self._connection.close()

    def read(self, chunks: int) -> None:
        """Read until so many chunks of text have come in all."""
        for event in self._events():
            if self.tokens >= chunks * CHUNK_TOKENS or event == "[DONE]":
                return

    def read_to_end(self) -> bool:
        """False when it broke off without a word."""
        last = ""
        try:
            for event in self._events():
                last = event
        except (OSError, http.client.HTTPException):
            return False
        return last == "[DONE]" or bool(self.error)

    def _events(self) -> Iterator[str]:
        while line := self._response.readline():
            if not line.startswith(b"data: "):
                continue
            event = line[len(b"data: ") :].decode().strip()
            said = {} if event == "[DONE]" else json.loads(event)
            self.error = said.get("error", self.error)
            if said.get("choices") and said["choices"][0]["delta"].get("content"):
                self.tokens += CHUNK_TOKENS
            yield event


def connection_to(gateway: RunningGateway) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(gateway.proxy).netloc, timeout=30)


def post(connection: http.client.HTTPConnection, key: str, body: object) -> None:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body).encode(), headers)


class Caller:
    """A client with a kept connection, by whom a test knows that no more is taken."""

    def __init__(self, gateway: RunningGateway, key: str) -> None:
        self.connection, self._key = connection_to(gateway), key
        assert self.call().status == 200

    def call(self) -> http.client.HTTPResponse:
        headers = {"Authorization": f"Bearer {self._key}"}
        self.connection.request("GET", "/v1/models", headers=headers)
        response = self.connection.getresponse()
        self.body = response.read()
        return response

    def refused(self) -> http.client.HTTPResponse:
        """The first refusal; calls that were answered before it do not matter."""

        def refusal() -> http.client.HTTPResponse | None:
            response = self.call()
            return response if response.status == 503 else None

        return until(refusal, 10, "calls on a kept connection to be refused")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def test_what_still_runs_when_the_time_is_over_is_told_so_and_settled(
    make_gateway: MakeGateway, stack: ExitStack
) -> None:
    gateway = make_gateway(shutdown_s=9)
    gateway.stand_in.reset()
    gateway.start()
    user, key = gateway.new_user("full")
    words = f"@stand-in write={WHOLE_TOKENS} hold=too_long"
    pool = stack.enter_context(ThreadPoolExecutor(1))
    stream = stack.enter_context(closing(Stream(gateway, key, f"{words} hold_after={HELD_AT}")))
    stream.read(HELD_AT)
    whole = pool.submit(gateway.chat, key, words)
    gateway.stand_in.await_held("too_long", 2)
    caller = Caller(gateway, key)
    os.kill(gateway.pid, signal.SIGTERM)

    assert caller.refused().headers["Connection"] == "close"
    assert json.loads(caller.body)["error"]["code"] == "shutting_down"
    with pytest.raises(OSError):
        connection_to(gateway).connect()
    ready = ask(f"{gateway.ops}/readyz")
    assert (ready.status, ready.json["checks"]["supervisor"]) == (503, "shutting down")
    assert "calls: shutting down" in ready.json["checks"]["proxy-1"]
    # What goes on can be watched until the end.
    assert gateway.metric("decisions_total", reason="shutting_down") == 1

    assert stream.read_to_end()
    assert stream.error["code"] == "shutting_down"
    answer = whole.result(20)
    assert answer.code == (503, "shutting_down")
    assert answer.headers["connection"] == "close"
    assert gateway.ended() == 0
    gateway.nothing_runs()
    gateway.stand_in.release("too_long")

    exported = gateway.command("ledger", "export", "--format", "ndjson", "--user", user)
    rows = {row["stream"]: row for row in map(json.loads, exported.stdout.splitlines())}
    assert len(rows) == 2, "the jobs have drained what was cut"
    assert (rows[True]["outcome"], rows[True]["quality"]) == ("expired", "partial")
    assert rows[True]["output_tokens"] == stream.tokens == HELD_AT * CHUNK_TOKENS
    assert (rows[False]["outcome"], rows[False]["charged_tokens"]) == ("unknown_upstream", 0)
    gateway.start()
    assert gateway.shown(user)["open_holds"] == 0
    verdict = gateway.cli("ledger", "verify")
    assert verdict["agrees"]


def at_once(gateway: RunningGateway, caller: Caller, streams: list[Stream]) -> None:
    """Killed with the signal to end not yet heard."""


def when_refused(gateway: RunningGateway, caller: Caller, streams: list[Stream]) -> None:
    caller.refused()


def while_they_run(gateway: RunningGateway, caller: Caller, streams: list[Stream]) -> None:
    caller.refused()
    gateway.stand_in.release("stops")
    chances = random.Random(16)
    for stream in streams:
        stream.read(chances.randint(HELD_AT, WHOLE_TOKENS // CHUNK_TOKENS))


def when_all_have_ended(gateway: RunningGateway, caller: Caller, streams: list[Stream]) -> None:
    caller.refused()
    gateway.stand_in.release("stops")
    assert all(stream.read_to_end() for stream in streams)


def when_one_was_cut(gateway: RunningGateway, caller: Caller, streams: list[Stream]) -> None:
    assert streams[0].read_to_end()
    assert streams[0].error["code"] == "shutting_down"


MOMENTS = (at_once, when_refused, while_they_run, when_all_have_ended, when_one_was_cut)


def ended_by_both_signals(
    gateway: RunningGateway,
    key: str,
    moment: Callable[[RunningGateway, Caller, list[Stream]], None],
) -> list[Stream]:
    """The streams that were open at SIGTERM, read as far as they came before SIGKILL."""
    words = f"@stand-in write={WHOLE_TOKENS} hold=stops hold_after={HELD_AT}"
    streams = [Stream(gateway, key, words) for _ in range(STREAMS)]
    for stream in streams:
        stream.read(HELD_AT)
    gateway.stand_in.await_held("stops", STREAMS)
    caller = Caller(gateway, key)
    with closing(caller.connection):
        os.kill(gateway.pid, signal.SIGTERM)
        moment(gateway, caller, streams)
        gateway.kill()
    for stream in streams:
        stream.read_to_end()
        stream.close()
    gateway.stand_in.release("stops")
    return streams


def holds_nothing(gateway: RunningGateway, user: str) -> bool:
    return not gateway.shown(user)["open_holds"]


def test_a_sigkill_at_any_moment_after_sigterm_loses_nothing(make_gateway: MakeGateway) -> None:
    first = make_gateway(identity=PEPPER, lease=QUICK_LEASE)
    first.stand_in.reset()
    first.start()  # it has the stores, the drain and the sweeper
    stores = {
        "redis": {"url": redis_url(first.state_dir)},
        "ledger": {"url": postgres_url(first.state_dir)},
    }
    for moment in MOMENTS:
        user, key = first.new_user("full")
        gateway = make_gateway(identity=PEPPER, lease=QUICK_LEASE, shutdown_s=6, **stores)
        streams = ended_by_both_signals(gateway.start("--jobs", "none"), key, moment)
        until(partial(holds_nothing, first, user), 30, f"all holds to end: {moment}")
        rows = first.ledger_rows(user, STREAMS)
        read = sorted(stream.tokens for stream in streams)
        booked = sorted(row["output_tokens"] for row in rows)
        for tokens, charged in zip(read, booked, strict=True):
            assert tokens <= charged <= tokens + UNSEEN_TOKENS_MAX, moment
        if moment is when_all_have_ended:
            assert booked == read == [WHOLE_TOKENS] * STREAMS
        if moment is when_one_was_cut:
            cut = [row for row in rows if row["quality"] == "partial"]
            assert HELD_AT * CHUNK_TOKENS in [row["output_tokens"] for row in cut]
    verdict = first.cli("ledger", "verify", "--upstream", first.stand_in.url)
    assert verdict["agrees"]
    assert {line["redis_off"] for line in verdict["lines"]} == {0}
