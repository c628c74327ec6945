"""`replay` says in one line what it misses, before it sends anything."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from gateway.cli.main import main

CONFIG = Path(__file__).resolve().parents[3] / "config.yaml"


class Command:
    """The command line in this process, in a state directory where no gateway runs."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def fails(self, *words: str) -> tuple[int, str]:
        """Its exit code, and the one line that it prints."""
        try:
            code = main(["replay", *words, "--config", str(CONFIG)])
        except SystemExit as end:  # argparse
            code = int(str(end.code))
        printed = self._capsys.readouterr()
        assert printed.out == ""
        return code, printed.err.strip().splitlines()[-1]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    monkeypatch.setenv("QUOTA_STATE_DIR", str(tmp_path / "state"))
    return Command(capsys)


def test_a_wrong_file_is_told_in_one_line(command: Command, tmp_path: Path) -> None:
    missing = tmp_path / "none.csv"
    said = f"quota-gateway: {missing}: expected a CSV file, found nothing there"
    assert command.fails(str(missing)) == (2, said)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--users", "2", "expected one for each tier at least (free, lite, full)"),
        ("--users", "0", "expected a whole number from 1"),
        ("--concurrency", "many", "expected a whole number from 1"),
        ("--speed", "fast", "expected max or a number from 0"),
        ("--speed", "nan", "expected max or a number from 0"),
        ("--patience", "-1", "expected a number from 0"),
    ],
)
def test_a_wrong_option_is_told_in_one_line(
    command: Command, option: str, value: str, said: str
) -> None:
    code, line = command.fails(option, value)
    assert code == 2
    assert option in line
    assert line.endswith(said)


def test_nothing_is_sent_through_an_upstream_that_may_cost_money(command: Command) -> None:
    code, line = command.fails()
    assert code == 1
    assert "no stand-in is known behind this gateway" in line


def test_a_stand_in_that_is_none_is_told(command: Command) -> None:
    code, line = command.fails("--upstream", _nobody())
    assert code == 1
    assert "expected the stand-in (mock-openai), found Cannot connect" in line


def test_a_gateway_that_does_not_run_is_told(command: Command) -> None:
    code, line = command.fails("--gateway", _nobody(), "--real-upstream")
    assert code == 1
    assert "no gateway answers at http://127.0.0.1:" in line


def test_a_model_that_not_every_tier_may_call_is_told(command: Command) -> None:
    code, line = command.fails("--model", "gpt-9", "--real-upstream")
    assert code == 1
    assert "expected a model that every tier may call (gpt-6-luna, " in line
    assert line.endswith("found gpt-9")


def _nobody() -> str:
    """An address where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"
