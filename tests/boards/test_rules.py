"""Rules and alerts say what they should, by promtool; each alert has its test and its runbook."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from gateway.adapters.prometheus_jobs_metrics import JobsMetrics
from tests.boards.prometheus_files import ALERTS, PLACE, RECORDED, ROOT, metrics_of, read

RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text()
METRICS = (ROOT / "docs" / "metrics.md").read_text()
# One figure of rules.yaml against a number; or a gateway that is not there to be asked.
COMPARES = re.compile(r"quota:[\w:]+ [<>] [\d.]+")
ABSENCE = re.compile(r'up\{job="quota-gateway"\} == 0|absent\(\w+\{job="quota-gateway"\}\) > 0')


@pytest.fixture
def promtool(missing: Callable[[str], NoReturn]) -> Callable[..., subprocess.CompletedProcess[str]]:
    found = shutil.which("promtool") or missing("promtool is not installed (package prometheus)")

    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([found, *words], capture_output=True, text=True, timeout=100)

    return run


def test_prometheus_takes_the_configuration(
    promtool: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = promtool("check", "config", PLACE / "prometheus.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_silent_fires_and_is_silent_again(
    promtool: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = promtool("test", "rules", PLACE / "alerts.test.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_alert_that_never_fires_is_noticed(
    promtool: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """The tests of alerts are no tests if they pass with alerts that are broken."""
    for name in ("rules.yaml", "alerts.test.yaml"):
        shutil.copy(PLACE / name, tmp_path)
    alerts = (PLACE / "alerts.yaml").read_text()
    broken = alerts.replace("quota:redis_away:max > 0", "quota:redis_away:max > 99")
    (tmp_path / "alerts.yaml").write_text(broken)
    done = promtool("test", "rules", tmp_path / "alerts.test.yaml")
    assert done.returncode != 0
    assert "QuotaRedisAway" in done.stdout + done.stderr


def test_each_alert_is_tested() -> None:
    tested = [test["name"] for test in read("alerts.test.yaml")["tests"]]
    assert tested == [alert.name for alert in ALERTS]
    for test in read("alerts.test.yaml")["tests"]:
        asked = test["promql_expr_test"]
        assert [each["exp_samples"][0]["value"] for each in asked] == [0, 1, 0], test["name"]
        assert all(f'"{test["name"]}"' in each["expr"] for each in asked), test["name"]


def test_each_alert_compares_one_figure_and_says_who_wakes_and_where_to_look() -> None:
    for alert in ALERTS:
        assert COMPARES.fullmatch(alert.asks) or ABSENCE.fullmatch(alert.asks), alert
        assert alert.labels["severity"] in {"page", "ticket"}
        assert set(alert.annotations) == {"summary", "description", "runbook", "board"}


def test_each_alert_links_to_its_runbook_and_each_runbook_has_its_alert() -> None:
    headings = re.findall(r"^## (\w+)$", RUNBOOKS, re.MULTILINE)
    assert headings == [alert.name for alert in ALERTS]
    for alert in ALERTS:
        assert alert.annotations["runbook"] == f"docs/runbooks.md#{alert.name.lower()}"
    for part in re.split(r"^## ", RUNBOOKS, flags=re.MULTILINE)[1:]:
        name, _, text = part.partition("\n")
        marks = re.findall(r"^\*\*([\w ]+)\*\*", text, re.MULTILINE)
        assert marks == ["Means", "Callers notice", "Look at", "Do"], name
        severity = next(alert for alert in ALERTS if alert.name == name).labels["severity"]
        assert f"**Means** ({severity}):" in text, name


def test_links_between_runbooks_lead_somewhere() -> None:
    for place in re.findall(r"\]\(#([\w-]+)\)", RUNBOOKS):
        assert place in {alert.name.lower() for alert in ALERTS}


def test_every_figure_asks_for_metrics_that_there_are() -> None:
    there = set(re.findall(r"^\| `(quota_gateway_\w+)` \|", METRICS, re.MULTILINE))
    asked = set().union(*map(metrics_of, [*RECORDED.values(), *(each.asks for each in ALERTS)]))
    assert asked <= there


def test_what_shows_that_the_jobs_run_is_shown_from_their_start() -> None:
    assert b"\nquota_gateway_holds_open 0" in JobsMetrics().render()
