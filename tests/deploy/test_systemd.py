"""The systemd unit: read by systemd itself, and compared with what the program needs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from tests.deploy.facts import DEPLOY, PROGRAM, SETTINGS, VARIABLES, command_of

UNIT = DEPLOY / "systemd" / "quota-gateway.service"
# By `systemd-analyze security`: 0 is a service that can do nothing, 10 one that can do anything.
EXPOSURE_MAX = 2.0


def settings() -> dict[str, list[str]]:
    """Every setting of the unit with its values in order."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        name, mark, value = line.partition("=")
        if mark and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


@pytest.fixture
def analyse(tmp_path: Path, missing: Callable[[str], NoReturn]) -> Callable[..., str]:
    """Ask systemd-analyze about the unit, with a program that this machine has."""
    if shutil.which("systemd-analyze") is None:
        missing("systemd-analyze is not installed (Debian package systemd)")

    def ask(verb: str, *options: str, text: str = UNIT.read_text()) -> str:
        unit = tmp_path / UNIT.name
        unit.write_text(text.replace(PROGRAM, shutil.which("true") or ""))
        done = subprocess.run(
            ["systemd-analyze", verb, *options, str(unit)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        return f"{done.returncode}\n{done.stdout}{done.stderr}"

    return ask


def test_systemd_takes_every_line_of_it(analyse: Callable[..., str]) -> None:
    assert analyse("verify") == "0\n"
    misspelt = UNIT.read_text().replace("KillMode=mixed", "KillMode=miexd")
    assert "miexd" in analyse("verify", text=misspelt)


def test_it_leaves_little_to_whoever_takes_it_over(analyse: Callable[..., str]) -> None:
    limit = f"--threshold={EXPOSURE_MAX * 10:.0f}"
    answer = analyse("security", "--offline=true", limit)
    assert answer.startswith("0\n"), answer


def test_it_runs_commands_that_there_are_with_variables_that_are_read() -> None:
    unit = settings()
    for line in [*unit["ExecStartPre"], *unit["ExecStart"]]:
        program, *words = line.split()
        assert program == PROGRAM
        assert command_of(words)
    assert unit["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    environ = dict(each.split("=", 1) for each in unit["Environment"])
    assert {name for name in environ if name.startswith("QUOTA_")} <= VARIABLES
    named = UNIT.read_text().partition("It\n# names ")[2].partition(":")[0]
    assert {word.strip(" ,") for word in named.replace("# ", "").split()} - {"and"} <= VARIABLES


def test_its_state_is_where_it_may_write() -> None:
    unit = settings()
    environ = dict(each.split("=", 1) for each in unit["Environment"])
    assert unit["ProtectSystem"] == ["strict"]
    assert environ["QUOTA_STATE_DIR"] == f"/var/lib/{unit['StateDirectory'][0]}"
    assert environ["QUOTA_CONFIG"] == "/etc/quota-gateway/config.yaml"


def test_no_secret_stands_in_it() -> None:
    """Units can be read by everybody."""
    unit = settings()
    assert unit["EnvironmentFile"] == ["/etc/quota-gateway/environment"]
    assert not [each for each in unit["Environment"] if "KEY" in each or "PEPPER" in each]


def test_it_waits_until_the_gateway_has_ended_by_itself() -> None:
    unit = settings()
    assert unit["KillMode"] == ["mixed"]  # the supervisor ends the others, in their order
    assert int(unit["TimeoutStopSec"][0]) > SETTINGS.file.shutdown_s
    assert int(unit["LimitNOFILE"][0]) >= 2 * SETTINGS.file.clients.connections_max
