"""The boards are what their sources say, and what a tired reader can take in at night."""

from __future__ import annotations

import itertools
import re
import runpy
from typing import Any

import pytest
import yaml

from tests.boards.panels import BOARDS, asks, boards
from tests.boards.prometheus_files import ALERTS, RECORDED, ROOT, metrics_of

GRAFANA = ROOT / "deploy" / "grafana"
METRICS = (ROOT / "docs" / "metrics.md").read_text()
PANELS = [(board["uid"], panel) for board in boards() for panel in board["panels"]]
names = pytest.mark.parametrize(
    ("board", "panel"), PANELS, ids=[f"{board}: {panel['title']}" for board, panel in PANELS]
)


def test_the_boards_are_built_from_their_sources() -> None:
    built = runpy.run_path(str(GRAFANA / "build.py"))["all_boards"]()
    kept = {path.name: path.read_text() for path in BOARDS.glob("*.json")}
    assert built == kept, "run python deploy/grafana/build.py"


@names
def test_a_panel_says_what_it_shows_and_what_is_bad(board: str, panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith((".", "user show"))
    steps = [step["color"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
    # Red is for what is bad; what cannot be bad has no colour at all.
    assert steps in (
        *(["text"], ["green", "red"], ["red", "green"], ["green", "orange"]),
        ["green", "orange", "red"],
    )


@names
def test_an_alert_that_a_panel_names_exists_and_leads_back_to_its_board(
    board: str, panel: dict[str, Any]
) -> None:
    for name in re.findall(r"Quota[A-Z]\w+", panel["description"]):
        assert name in {alert.name for alert in ALERTS}


def test_each_alert_leads_to_a_board_that_there_is() -> None:
    there = {f"/d/{board['uid']}" for board in boards()}
    assert {alert.annotations["board"] for alert in ALERTS} <= there


def test_panels_lie_side_by_side_and_never_over_each_other() -> None:
    for board in boards():
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            at = panel["gridPos"]
            cells = set(
                itertools.product(
                    range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])
                )
            )
            assert at["x"] + at["w"] <= 24
            assert not cells & taken, panel["title"]
            taken |= cells


def test_panels_ask_for_metrics_that_there_are_and_never_by_user() -> None:
    there = set(re.findall(r"^\| `(quota_gateway_\w+)` \|", METRICS, re.MULTILINE))
    for ask in asks():
        if not ask.is_sql:
            assert metrics_of(ask.promql()) <= there, ask
            assert set(re.findall(r"quota:[\w:]+", ask.promql())) <= RECORDED.keys()


def test_money_and_users_are_shown_without_the_canary() -> None:
    for ask in asks():
        if not ask.is_sql and re.search(r"quota_gateway_cost_gbp|kind=\"charged\",t", ask.promql()):
            assert 'tier!="canary"' in ask.promql(), ask.panel
        if ask.is_sql and "user_id" not in ask.target["rawSql"]:
            assert "tier IS DISTINCT FROM 'canary'" in ask.target["rawSql"], ask.panel


def test_grafana_finds_the_sources_that_the_boards_name() -> None:
    place = GRAFANA / "provisioning" / "datasources" / "quota.yaml"
    sources = {each["uid"] for each in yaml.safe_load(place.read_text())["datasources"]}
    used = {panel["datasource"]["uid"] for _, panel in PANELS}
    assert used == sources
