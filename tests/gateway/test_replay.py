"""`replay` through a whole gateway, and everything compared afterwards."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from gateway.app.replay import SAMPLE
from gateway.replay.trace import count_rows, read_trace
from tests.gateway.running_gateway import MODEL, RunningGateway, running_gateway
from tests.gateway.standin_process import StandInProcess
from tests.gateway.waiting_for import until

ROWS = 60
CONCURRENCY = 4
LEAST_TOKENS = 13  # of a prompt: what the order to the stand-in takes
# The holds of a killed gateway end soon.
SHORT = {"lease": {"ms": 2000, "grace_ms": 500, "heartbeat_ms": 200}}
# Redis may die a moment before the gateway: what went out unheld then is in no row (a stated loss).
CLOSED = {"redis": {"mode": "closed"}}


@pytest.fixture(scope="module")
def replayed(stand_in: StandInProcess) -> Iterator[RunningGateway]:
    """A gateway that starts a stand-in of its own, as whoever tries it out has one."""
    with running_gateway(stand_in, None, "--stand-in") as gateway:
        yield gateway


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """The first rows of the sample."""
    path = tmp_path / "trace.csv"
    with SAMPLE.open() as sample:
        path.write_text("".join(islice(sample, ROWS + 1)))
    return path


def total(report: Any, figure: str) -> int:
    return sum(counts[figure] for counts in report["tiers"].values())


def on_a_port_that_stays() -> dict[str, Any]:
    """The proxy where a gateway that starts again is found again."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return {"listen": {"proxy": f"127.0.0.1:{free.getsockname()[1]}"}}


def check_every_row_has_one_answer(report: Any, rows: int) -> None:
    assert report["rows"] == total(report, "requests") == rows
    for counts in report["tiers"].values():
        assert counts["admitted"] + sum(counts["refused"].values()) == counts["requests"]


def test_a_replay_is_booked_to_the_token(replayed: RunningGateway, trace: Path) -> None:
    done = replayed.command(
        "replay", str(trace), "--seed", "1", "--concurrency", str(CONCURRENCY), "--json"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no progress bar where nobody looks
    report = json.loads(done.stdout)
    check_every_row_has_one_answer(report, ROWS)
    tiers = [(tier, counts["users"]) for tier, counts in report["tiers"].items()]
    assert tiers == [(tier, 2) for tier in replayed.settings.plan.tiers]
    assert total(report, "admitted") == ROWS  # so few tokens fit everybody's quota
    verdict = report["verdict"]
    assert report["in_order"]
    assert verdict["agrees"]
    assert verdict["compared_upstream"]
    assert verdict["open_holds"] == verdict["unbooked_calls"] == 0
    wanted = sum(
        max(row.context_tokens, LEAST_TOKENS) + row.generated_tokens for row in read_trace(trace)
    )
    lines = [line for line in verdict["lines"] if line["user"].startswith("replay-1-")]
    assert [line["user"] for line in lines] == [f"replay-1-{number:04}" for number in range(1, 7)]
    assert sum(line["ledger_tokens"] for line in lines) == wanted
    assert sum(line["upstream_tokens"] for line in lines) == wanted
    export = replayed.command("ledger", "export", "--format", "ndjson").stdout.splitlines()
    rows = [json.loads(line) for line in export]
    assert {row["tag"] for row in rows} == {"replay"}
    assert 0 < sum(row["stream"] for row in rows) < ROWS
    assert 0 < total(report, "with_usage") < ROWS


def test_users_of_an_earlier_replay_are_taken_up_and_meet_their_limit(
    replayed: RunningGateway, trace: Path
) -> None:
    replay = ("replay", str(trace), "--seed", "7", "--users", "3", "--concurrency", "2")
    first = replayed.cli(*replay)
    replayed.cli("user", "set-used", "replay-7-0001", "99900", "--reason", "nearly used up")
    second = replayed.cli(*replay)
    for report in (first, second):
        check_every_row_has_one_answer(report, ROWS)
    assert first["tiers"]["free"]["refused"] == {}
    assert second["tiers"]["free"]["refused"]["insufficient_quota"] > 0
    assert second["tiers"]["lite"]["refused"] == {}
    assert second["tiers"]["free"]["requests"] == first["tiers"]["free"]["requests"]
    fresh = replayed.cli(*replay, "--fresh")
    assert fresh["tiers"] == first["tiers"]
    users = [line["user"] for line in fresh["verdict"]["lines"]]
    assert sum(user.startswith("replay-7-2") for user in users) == 3


@pytest.fixture
def killed(tmp_path: Path) -> Iterator[RunningGateway]:
    """A gateway to be killed, before a stand-in that counts for nobody else."""
    stand_in, place = StandInProcess(), tmp_path / "gateway"
    place.mkdir()
    gateway = RunningGateway(place, stand_in, {**on_a_port_that_stays(), **SHORT, **CLOSED})
    try:
        yield gateway.start()
    finally:
        gateway.end()
        stand_in.stop()


def test_a_replay_outlives_a_gateway_that_is_killed_and_started_again(
    killed: RunningGateway, tmp_path: Path
) -> None:
    running = subprocess.Popen(
        [
            *(sys.executable, "-m", "gateway", "replay", "--json", "--seed", "3"),
            *("--speed", "200", "--concurrency", str(CONCURRENCY)),
            *("--upstream", killed.stand_in.url, "--model", MODEL),
        ],
        cwd=tmp_path,  # outside of the gateway's place, where nothing may be left
        env={**killed.environment, "QUOTA_CONFIG": str(killed.config)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until(lambda: len(killed.stand_in.calls()) >= 40, 30, "40 calls of the replay")
        killed.kill()
        killed.start()
        printed, trouble = running.communicate(timeout=60)
    finally:
        running.kill()
        running.communicate()
    assert running.returncode == 0, (printed, trouble)
    report = json.loads(printed)
    check_every_row_has_one_answer(report, count_rows(SAMPLE))
    assert total(report, "failed") > 0
    assert total(report, "admitted") > 200
    verdict = report["verdict"]
    assert verdict["agrees"]
    assert not verdict["open_holds"]
    assert sum(line["upstream_tokens"] for line in verdict["lines"]) > 0
    # Only the calls that were under way when it was killed.
    assert sum(line["unmeasured_calls"] for line in verdict["lines"]) <= CONCURRENCY
