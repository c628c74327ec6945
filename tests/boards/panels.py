"""What the built boards ask, with Grafana's own words put in place.

Knows the JSON that Grafana reads, not the YAML it was built from: a fault of the builder shows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.boards.prometheus_files import ROOT

Json = dict[str, Any]
BOARDS = ROOT / "deploy" / "grafana" / "dashboards"


@dataclass(frozen=True)
class Ask:
    """One target of one panel."""

    board: str
    panel: str
    target: Json

    @property
    def is_sql(self) -> bool:
        return "rawSql" in self.target

    def promql(self, interval: str = "1m") -> str:
        return str(self.target["expr"]).replace("$__rate_interval", interval)

    def sql(self, user_id: str) -> str:
        text = str(self.target["rawSql"]).replace("${user:sqlstring}", f"'{user_id}'")
        text = re.sub(r"\$__timeFilter\((\w+)\)", r"\1 > now() - interval '1 day'", text)
        hour = r"date_trunc('hour', \1)"
        return re.sub(r"\$__timeGroup\((\w+), '1h'\)", hour, text)


def boards() -> list[Json]:
    return [json.loads(path.read_text()) for path in sorted(BOARDS.glob("*.json"))]


def asks() -> Iterator[Ask]:
    for board in boards():
        for panel in board["panels"]:
            for target in panel["targets"]:
                yield Ask(board["uid"], panel["title"], target)
