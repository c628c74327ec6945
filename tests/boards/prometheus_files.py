"""The files of deploy/prometheus, read once: figures, alerts and their tests.

What they say is judged by promtool and by a real Prometheus; here they are only taken apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "deploy" / "prometheus"
METRIC = re.compile(r"quota_gateway_\w+")


@dataclass(frozen=True)
class Alert:
    name: str
    asks: str
    labels: dict[str, str]
    annotations: dict[str, str]


def read(name: str) -> Any:
    return yaml.safe_load((PLACE / name).read_text())


def _rules(name: str) -> list[dict[str, Any]]:
    return [rule for group in read(name)["groups"] for rule in group["rules"]]


RECORDED: dict[str, str] = {rule["record"]: rule["expr"] for rule in _rules("rules.yaml")}
ALERTS = [
    Alert(rule["alert"], rule["expr"], rule["labels"], rule["annotations"])
    for rule in _rules("alerts.yaml")
]


def metrics_of(expression: str) -> set[str]:
    """The gateway's metrics that an expression asks for, also by what is recorded."""
    found = {re.sub(r"_bucket$", "", name) for name in METRIC.findall(expression)}
    for name in re.findall(r"quota:[\w:]+", expression):
        found |= metrics_of(RECORDED[name])
    return found
