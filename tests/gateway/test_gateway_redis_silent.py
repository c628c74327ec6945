"""A gateway whose Redis falls silent: it refuses at once, says so, and goes on by itself."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import redis

from tests.gateway.running_gateway import RunningGateway
from tests.gateway.waiting_for import until

WAIT_S = 30.0


def test_a_frozen_redis_is_not_waited_for_and_nothing_is_lost_or_counted_twice(
    start_gateway: Callable[..., RunningGateway], redis_url: str, postgres_url: str
) -> None:
    gateway = start_gateway(
        redis={"url": redis_url, "deadline_ms": 150},
        ledger={"url": postgres_url},
        identity={"keys": {"pepper": "a-pepper-of-this-test"}},
    )
    gateway.stand_in.reset()  # of what it served other gateways
    user_id, key = gateway.new_user("free")

    def is_admitted() -> bool:
        return gateway.chat(key, "Hello").status == 200

    until(is_admitted, WAIT_S, "a first call")
    assert gateway.metric("redis_breaker_open") == 0
    with redis.Redis.from_url(redis_url) as client:
        info: Any = client.info("server")
    os.kill(info["process_id"], signal.SIGSTOP)
    try:
        refused = [gateway.chat(key, "Hello") for _ in range(5)]
        until(lambda: gateway.metric("redis_breaker_open") == 1, WAIT_S, "the breaker to open")
    finally:
        os.kill(info["process_id"], signal.SIGCONT)
    assert {answer.status for answer in refused} == {503}
    assert {answer.json["error"]["code"] for answer in refused} == {"quota_backend_unavailable"}
    until(lambda: gateway.metric("redis_breaker_open") == 0, WAIT_S, "the breaker to close")
    until(is_admitted, WAIT_S, "a call to be admitted")
    gateway.ledger_rows(user_id, 2)
    verdict = gateway.cli("ledger", "verify", "--upstream", gateway.stand_in.url)
    assert verdict["agrees"]
    (line,) = verdict["lines"]
    assert (line["redis_off"], line["upstream_off"]) == (0, 0)
