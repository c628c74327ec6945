"""What a gateway writes about its calls: one line each that can be found again, and no secret."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.issuer import AUDIENCE, NAME, SECRET, said, signed
from tests.gateway.loopback import ask
from tests.gateway.running_gateway import (
    MODEL,
    MODEL_WITH_WRONG_KEY,
    WRONG_KEY,
    RunningGateway,
    prompt,
)
from tests.gateway.standin_process import UPSTREAM_KEY, StandInProcess
from tests.gateway.test_gateway_secrecy import a_session_of_calls

AT_DEBUG = (
    "import logging, sys; from gateway.app import logs; logs.LEVEL = logging.DEBUG; "
    "from gateway.cli import main; sys.exit(main())"
)
CANARIES = ("canary-in-a-body", "canary-in-a-header", "canary-in-a-path", "ann@example.test")


class TalkativeGateway(RunningGateway):
    """Logs everything that anything in it has to say."""

    def _argv(self, *words: str) -> list[str]:
        return [sys.executable, "-c", AT_DEBUG, *words]

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stderr.read_text().splitlines()]


@pytest.fixture(scope="module")
def talkative(other_stand_in: StandInProcess) -> Iterator[TalkativeGateway]:
    with tempfile.TemporaryDirectory(prefix="qg-") as place:
        issuer = {"issuer": NAME, "audience": AUDIENCE, "algorithms": ["HS256"], "secret": SECRET}
        changes = {"log": {"decisions": "all"}, "identity": {"jwt": [issuer]}}
        running = TalkativeGateway(Path(place), other_stand_in, changes)
        try:
            running.start()
            yield running
        finally:
            running.end()


def test_every_decision_has_its_line_and_no_line_a_secret(talkative: TalkativeGateway) -> None:
    user, key = talkative.new_user()
    a_session_of_calls(talkative, key)
    sent = {"x-quota-tag": CANARIES[1], "x-client-request-id": CANARIES[3]}
    assert talkative.chat(key, CANARIES[0], sent).status == 200
    assert talkative.chat(f"{key}x", CANARIES[0]).status == 401
    forged = f"{signed(said())[:-4]}AAAA"
    assert talkative.chat(forged, CANARIES[0]).status == 401
    assert ask(f"{talkative.proxy}/v1/{CANARIES[2]}?key={key}").status == 404
    lines = talkative.log()
    assert "debug" in {line["level"] for line in lines}
    decisions = [line for line in lines if "route" in line]
    ours = [line for line in decisions if line.get("user") == user]
    admitted = [line for line in ours if line.get("decision") == "admitted"]
    rows = talkative.ledger_rows(user, 6)
    assert {row["event_id"] for row in rows} <= {line["request"] for line in admitted}
    assert {line["tier"] for line in ours} == {"free"}
    assert all(line["tokens"] > 0 and line["ms"] >= 0 for line in admitted)
    assert {line["model"] for line in admitted} >= {MODEL, MODEL_WITH_WRONG_KEY}
    reasons = {line["reason"] for line in decisions}
    assert {"invalid_value", "invalid_api_key", "upstream_auth_failed", "ok"} <= reasons
    text = talkative.stderr.read_text()
    for secret in (key, UPSTREAM_KEY, WRONG_KEY, WRONG_KEY[:8], SECRET, forged, *CANARIES):
        assert secret not in text


def test_a_clients_own_id_comes_back_and_ours_finds_the_row(talkative: TalkativeGateway) -> None:
    user, key = talkative.new_user()
    for body in (prompt("Hi"), prompt("Hi", stream=True), {"model": 3}):
        reply = talkative.chat(key, body, {"X-Request-Id": "Root=1-67891233"})
        assert reply.headers["x-request-id"] == "Root=1-67891233"
        ours = reply.headers["x-quota-request-id"]
        (line,) = [line for line in talkative.log() if line.get("request") == ours]
        assert line["client_request"] == "Root=1-67891233"
    rows = talkative.ledger_rows(user, 2)
    assert {row["client_id"] for row in rows} == {"Root=1-67891233"}
    plain = talkative.chat(key, "Hi", {"X-Request-Id": f"{key}"})
    assert "x-quota-request-id" not in plain.headers
    assert plain.headers["x-request-id"] == talkative.ledger_rows(user, 3)[2]["event_id"]
