"""Writes dashboards/*.json from boards/*.yaml: `python deploy/grafana/build.py`.

A panel says title, description, unit, bounds and expressions; here are the layout, the colours and
what else Grafana wants. Panels flow from left to right. Colours mean something only where bounds
are given: what cannot be bad is never green or red.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

PLACE = Path(__file__).resolve().parent
PROMETHEUS = {"type": "prometheus", "uid": "quota-prometheus"}
LEDGER = {"type": "grafana-postgresql-datasource", "uid": "quota-ledger"}
COLUMNS, NUMBER_HIGH, HIGH = 24, 4, 8
UNITS = {
    "calls/s": "reqps",
    "per second": "cps",
    "seconds": "s",
    "bytes": "bytes",
    "share": "percentunit",
    "GBP": "currencyGBP",
    "calls": "short",
    "tokens": "short",
    "tokens/min": "short",
    "events": "short",
    "notifications": "short",
    "times": "none",
}
Json = dict[str, Any]


def bounds(panel: Json) -> Json:
    """Steps from below upwards; grey without any, for what is neither well nor bad."""
    if "bad_below" in panel:
        return _steps((None, "red"), (panel["bad_below"], "green"))
    named = [(panel[key], colour) for key, colour in _NAMED if key in panel]
    return _steps((None, "green" if named else "text"), *named)


_NAMED = (("warn_from", "orange"), ("bad_from", "red"))


def _steps(*steps: tuple[float | None, str]) -> Json:
    shown = [{"value": value, "color": colour} for value, colour in steps]
    return {"mode": "absolute", "steps": shown}


def mappings(says: dict[Any, str]) -> list[Json]:
    """Words in place of numbers: `else` is for every other number."""
    well = [
        {"type": "value", "options": {str(value): {"text": text}}}
        for value, text in says.items()
        if value != "else"
    ]
    value = next(number for number in says if number != "else")
    other = {"from": value + 1e-9, "to": None} if value == 0 else {"from": None, "to": 1 - 1e-9}
    return [*well, {"type": "range", "options": {**other, "result": {"text": says["else"]}}}]


def targets(panel: Json) -> list[Json]:
    """What is asked; of a table and a number only how it is now."""
    if "sql" in panel:
        form = "table" if panel.get("show") == "table" else "time_series"
        asked = {"refId": "A", "datasource": LEDGER, "rawQuery": True, "format": form}
        return [{**asked, "rawSql": panel["sql"].strip()}]
    is_now = panel.get("show") in ("number", "table")
    now: Json = {"instant": True, "range": False} if is_now else {"range": True}
    if panel.get("show") == "table":
        now["format"] = "table"
    return [
        {"refId": chr(65 + n), "datasource": PROMETHEUS, "expr": ask, "legendFormat": name, **now}
        for n, (name, ask) in enumerate(panel["asks"].items())
    ]


def kind_of(panel: Json) -> tuple[str, Json]:
    """Grafana's name for it, and its options."""
    match panel.get("show", "lines"):
        case "number":
            calc = {"calcs": ["lastNotNull"], "fields": "", "values": False}
            colour = (
                "background" if {"bad_from", "bad_below", "warn_from"} & panel.keys() else "none"
            )
            return "stat", {"reduceOptions": calc, "colorMode": colour, "graphMode": "none"}
        case "table":
            return "table", {"showHeader": True}
    shown = {"displayMode": "table", "placement": "right", "calcs": ["lastNotNull", "max"]}
    return "timeseries", {"legend": shown, "tooltip": {"mode": "multi", "sort": "desc"}}


def built(panel: Json, number: int, place: Json) -> Json:
    kind, options = kind_of(panel)
    defaults: Json = {"thresholds": bounds(panel), "color": {"mode": "palette-classic"}}
    if kind != "timeseries":
        defaults["color"] = {"mode": "thresholds"}
    else:
        line = "dashed" if {"warn_from", "bad_from"} & panel.keys() else "off"
        custom = {"fillOpacity": 8, "thresholdsStyle": {"mode": line}}
        if panel.get("show") == "bars":
            custom |= {"drawStyle": "bars", "fillOpacity": 80}
        defaults |= {"min": 0, "custom": custom}
    if "unit" in panel:
        defaults["unit"] = UNITS[panel["unit"]]
        if panel["unit"] == "share":
            defaults["decimals"] = 1
    if "says" in panel:
        defaults["mappings"] = mappings(panel["says"])
    if kind == "stat":
        defaults["noValue"] = "not known"
    return {
        "id": number,
        "type": kind,
        "title": panel["title"],
        "description": panel["about"],
        "datasource": LEDGER if "sql" in panel else PROMETHEUS,
        "gridPos": place,
        "targets": targets(panel),
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
    }


def placed(panels: list[Json]) -> list[Json]:
    """Left to right, a new row where the next does not fit."""
    found, x, y, row_high = [], 0, 0, 0
    for number, panel in enumerate(panels, 1):
        is_number = panel.get("show") == "number"
        wide, high = panel.get("wide", 4), panel.get("high", NUMBER_HIGH if is_number else HIGH)
        if x + wide > COLUMNS:
            x, y, row_high = 0, y + row_high, 0
        found.append(built(panel, number, {"x": x, "y": y, "w": wide, "h": high}))
        x, row_high = x + wide, max(row_high, high)
    return found


def variables(board: Json) -> list[Json]:
    """The user, typed in: a list of all would be long, and a choice by chance."""
    if not board.get("user"):
        return []
    return [{"name": "user", "label": "User", "type": "textbox", "query": "", "current": {}}]


def dashboard(board: Json) -> Json:
    links = {"type": "dashboards", "tags": ["quota-gateway"], "title": "Boards", "keepTime": True}
    return {
        "uid": board["uid"],
        "title": f"quota-gateway: {board['title']}",
        "description": board["about"],
        "tags": ["quota-gateway"],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-24h" if board.get("user") else "now-3h", "to": "now"},
        "timezone": "utc",
        "links": [links],
        "templating": {"list": variables(board)},
        "panels": placed(board["panels"]),
    }


def all_boards() -> dict[str, str]:
    """The text of each file of dashboards/, by its name."""
    found = {}
    for source in sorted((PLACE / "boards").glob("*.yaml")):
        board = yaml.safe_load(source.read_text())
        text = json.dumps(dashboard(board), indent=1, ensure_ascii=False) + "\n"
        found[f"{board['uid']}.json"] = text
    return found


if __name__ == "__main__":
    for name, text in all_boards().items():
        (PLACE / "dashboards" / name).write_text(text)
