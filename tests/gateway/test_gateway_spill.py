"""A gateway that is killed while Redis is silent: the next one charges what was delivered, once."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

from gateway.core.hold import UNSEEN_TOKENS_MAX
from tests.frozen_redis import frozen
from tests.gateway.many_clients import Crowd
from tests.gateway.running_gateway import MakeGateway, RunningGateway, prompt
from tests.gateway.waiting_for import until

WAIT_S = 30.0
CALLS, STREAMS = 8, 2
WRITTEN_TOKENS = 1200  # more than what a stream's client is taken to have read unseen


def spilled(gateway: RunningGateway) -> list[Path]:
    return sorted((gateway.state_dir / "spill").iterdir())


def read_by(crowd: Crowd) -> set[int]:
    return {each.text_tokens for each in crowd.answers}


def lines(gateway: RunningGateway) -> int:
    return sum(path.read_bytes().count(b"\n") for path in spilled(gateway))


def made_on(make_gateway: MakeGateway, redis_url: str, postgres_url: str) -> RunningGateway:
    return make_gateway(
        workers=2,
        redis={"url": redis_url, "deadline_ms": 1000},
        ledger={"url": postgres_url},
        identity={"keys": {"pepper": "a-pepper-of-this-test"}},
        lease={"ms": 60_000, "grace_ms": 1000, "heartbeat_ms": 300},
    )


def nothing_is_left(gateway: RunningGateway) -> None:
    """All is sent, and booked once."""
    until(lambda: not spilled(gateway), WAIT_S, "nothing to be left on disk")
    assert gateway.metric("spill_bytes") == gateway.metric("spill_failures_total") == 0
    verdict = gateway.cli("ledger", "verify", "--upstream", gateway.stand_in.url)
    assert verdict["agrees"]
    assert verdict["open_holds"] == 0
    (line,) = verdict["lines"]
    assert (line["redis_off"], line["upstream_off"]) == (0, 0)


def test_what_was_delivered_while_redis_was_silent_is_charged_once_by_the_next_gateway(
    make_gateway: MakeGateway, redis_url: str, postgres_url: str
) -> None:
    gateway = made_on(make_gateway, redis_url, postgres_url)
    stand_in = gateway.stand_in
    gateway.start()
    stand_in.reset()
    user, key = gateway.new_user("full")
    # Whole answers come from the upstream in two waves: the second finds the breakers open, so not
    # a byte of its settlements is on its way to Redis. Streams write on, and do not end.
    first = prompt("@stand-in hold=first usage=100/40")
    second = prompt("@stand-in hold=second usage=100/50")
    stops_after = f"hold=open hold_after={WRITTEN_TOKENS // 4} chunk_ms=5"
    endless = prompt(f"@stand-in write={2 * WRITTEN_TOKENS} {stops_after}", stream=True)
    until(lambda: gateway.chat(key, "@stand-in usage=100/30").status == 200, WAIT_S, "a first call")
    crowd = Crowd([gateway], [(key, first), (key, second)] * CALLS)
    stand_in.await_held("first", CALLS)
    stand_in.await_held("second", CALLS)
    streams = Crowd([gateway], [(key, endless)] * STREAMS)
    until(lambda: all(each.text_tokens for each in streams.answers), WAIT_S, "streams to begin")
    with frozen(redis_url) as go_on:
        stand_in.release("first")
        until(lambda: gateway.metric("redis_breaker_open") == 2, WAIT_S, "both breakers to open")
        stand_in.release("second")
        assert [answer.status for answer in crowd.done()] == [200] * 2 * CALLS
        stand_in.await_held("open", STREAMS)
        until(lambda: read_by(streams) == {WRITTEN_TOKENS}, WAIT_S, "clients to have read")
        seen = lines(gateway)
        until(lambda: lines(gateway) >= seen + 2 * STREAMS, WAIT_S, "two more beats")
        assert gateway.metric("spill_bytes") > 0
        gateway.kill()
        assert 1 <= len(spilled(gateway)) <= 2  # one a worker that had calls
        go_on()
    streams.done()
    gateway.start()

    rows = gateway.ledger_rows(user, 1 + 2 * CALLS + STREAMS)
    assert Counter(row["charged_tokens"] for row in rows if row["quality"] == "measured") == {
        130: 1,
        140: CALLS,
        150: CALLS,
    }
    cut = [row for row in rows if row["quality"] != "measured"]
    assert {(row["quality"], row["outcome"]) for row in cut} == {("estimated", "expired")}
    for row in cut:
        unseen_tokens = row["output_tokens"] - WRITTEN_TOKENS
        assert 0 <= unseen_tokens <= UNSEEN_TOKENS_MAX
    nothing_is_left(gateway)
    assert stand_in.served(user)["requests"] == len(rows)


def test_a_worker_that_was_killed_is_started_again_and_sends_what_the_first_could_not(
    make_gateway: MakeGateway, redis_url: str, postgres_url: str
) -> None:
    gateway = made_on(make_gateway, redis_url, postgres_url)
    gateway.start()
    gateway.stand_in.reset()
    user, key = gateway.new_user("full")
    until(lambda: gateway.chat(key, "Hello").status == 200, WAIT_S, "a first call")
    crowd = Crowd([gateway], [(key, prompt("@stand-in hold=one usage=100/40"))])
    gateway.stand_in.await_held("one", 1)
    with frozen(redis_url) as go_on:
        # By its heartbeats: its settlement will not be sent.
        until(lambda: gateway.metric("redis_breaker_open") == 1, WAIT_S, "its breaker to open")
        gateway.stand_in.release("one")
        (answer,) = crowd.done()
        assert answer.status == 200
        (path,) = spilled(gateway)
        worker = gateway.child(path.name.rpartition("-")[0])
        os.kill(worker, signal.SIGKILL)
        assert spilled(gateway) == [path]
        go_on()
    assert gateway.ledger_rows(user, 2)[-1]["charged_tokens"] == 140
    nothing_is_left(gateway)
