"""A board as a page: the layout, titles, units, bounds and words of its JSON, and given figures.

Not Grafana's looks. It knows nothing of where figures come from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

Json = dict[str, Any]
Line = tuple[str, list[tuple[float, float]]]
CELL, WIDE, GAP, TOP = 34, 58, 8, 64
_LINES = ("#73bf69", "#5794f2", "#ff9830", "#b877d9", "#f2cc0c", "#8ab8ff", "#ff7383", "#c8f2c2")
_COLOURS = {"green": "#1a7f4b", "red": "#c4162a", "orange": "#c2600a", "text": "#22252b"}
_STYLE = """
body{margin:0;background:#111217;color:#d8d9da;font:13px sans-serif}
h1{font-size:20px;margin:0;padding:12px 16px 2px}h1+p{margin:0 16px;color:#9fa1a6}
.panel{position:absolute;box-sizing:border-box;background:#181b1f;border:1px solid #2c3235;
padding:6px 10px;overflow:hidden}
.panel h2{font-size:13px;font-weight:600;margin:0 0 2px}
.stat{color:#fff}.stat b{display:block;text-align:center;font-size:34px;font-weight:600;
margin-top:16px}
table{border-collapse:collapse;font-size:12px;width:100%}
td,th{text-align:left;padding:2px 8px;border-bottom:1px solid #2c3235;white-space:nowrap}
th{color:#8ab8ff}svg text{fill:#9fa1a6;font-size:10px}
.names{position:absolute;right:8px;top:26px;width:35%;font-size:11px}
.names td:last-child{text-align:right}
"""


@dataclass(frozen=True)
class Figures:
    """What a panel's questions were answered."""

    lines: Sequence[Line] = ()
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()


def page(board: Json, figures: Mapping[int, Figures]) -> tuple[str, int]:
    """The board as HTML, and its height in pixels."""
    panels = board["panels"]
    inner = "".join(_panel(panel, figures[panel["id"]]) for panel in panels)
    high = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels) * CELL + TOP + GAP
    head = f"<h1>{escape(board['title'])}</h1><p>{escape(board['description'])}</p>"
    return f"<meta charset=utf-8><style>{_STYLE}</style>{head}{inner}", high


def shown(value: float, unit: str | None) -> str:
    """A figure as a reader wants it."""
    match unit:
        case "percentunit":
            return f"{100 * value:.1f} %"
        case "currencyGBP":
            return f"£{value:,.2f}"
        case "s":
            return f"{1000 * value:.3g} ms" if 0 < value < 1 else f"{value:.3g} s"
        case "bytes":
            return f"{value:,.0f} B" if value < 1024 else f"{value / 1024:,.1f} KiB"
        case "reqps":
            return f"{value:.3g} req/s"
        case "cps":
            return f"{value:.3g} /s"
    if value >= 1e6:
        return f"{value / 1e6:.3g} Mil"
    if value >= 1e4:
        return f"{value / 1e3:.3g} K"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def colour(panel: Json, value: float | None) -> str:
    """By the bounds, as Grafana does: the last step that the value reaches."""
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    if value is None:
        return _COLOURS["text"]
    reached = [step for step in steps if step["value"] is None or value >= step["value"]]
    return _COLOURS[reached[-1]["color"]]


def said(panel: Json, value: float) -> str:
    """In words where the board has some for it."""
    defaults = panel["fieldConfig"]["defaults"]
    for mapping in defaults.get("mappings", ()):
        options = mapping["options"]
        if mapping["type"] == "value" and f"{value:g}" in options:
            return str(options[f"{value:g}"]["text"])
        if mapping["type"] == "range":
            low = -math.inf if options["from"] is None else options["from"]
            high = math.inf if options["to"] is None else options["to"]
            if low <= value <= high:
                return str(options["result"]["text"])
    return shown(value, defaults.get("unit"))


def _panel(panel: Json, figures: Figures) -> str:
    at = panel["gridPos"]
    wide, high = at["w"] * WIDE - GAP, at["h"] * CELL - GAP
    place = f"left:{at['x'] * WIDE + GAP}px;top:{at['y'] * CELL + TOP}px"
    title = f"<h2>{escape(panel['title'])}</h2>"
    kind, fill = "", ""
    if panel["type"] == "stat":
        value = figures.lines[0][1][-1][1] if figures.lines else None
        word = "not known" if value is None else said(panel, value)
        kind, fill = "stat", f"background:{colour(panel, value)};"
        inner = f"<b>{escape(word)}</b>"
    elif panel["type"] == "table":
        inner = _table(figures)
    else:
        inner = _chart(panel, figures.lines, wide - 20, high - 34)
    style = f"{place};width:{wide}px;height:{high}px;{fill}"
    return f'<div class="panel {kind}" style="{style}">{title}{inner}</div>'


def _table(figures: Figures) -> str:
    head = "".join(f"<th>{escape(name)}" for name in figures.columns)
    rows = ("".join(f"<td>{escape(str(cell))}" for cell in row) for row in figures.rows)
    return f"<table><tr>{head}{''.join(f'<tr>{row}' for row in rows)}</table>"


def _chart(panel: Json, lines: Sequence[Line], wide: int, high: int) -> str:
    if not lines:
        return "<p>no data</p>"
    plot, left = int(wide * 0.61), 62
    unit = panel["fieldConfig"]["defaults"].get("unit")
    times = [time for _, points in lines for time, _ in points]
    start, end = min(times), max(max(times), min(times) + 1)
    top = _round_up(max(value for _, points in lines for _, value in points))
    parts = []
    for share in (0, 0.5, 1):
        y = (high - 18) * (1 - share) + 4
        parts.append(f'<line x1={left} x2={plot} y1={y:.0f} y2={y:.0f} stroke="#2c3235"/>')
        label = escape(shown(top * share, unit))
        parts.append(f'<text x={left - 6} y={y + 4:.0f} text-anchor="end">{label}</text>')
    for number, (_, points) in enumerate(sorted(lines)):
        at = " ".join(
            f"{left + (plot - left) * (time - start) / (end - start):.1f},"
            f"{(high - 18) * (1 - value / top) + 4:.1f}"
            for time, value in points
        )
        ink = _LINES[number % len(_LINES)]
        if panel["fieldConfig"]["defaults"]["custom"].get("drawStyle") == "bars":
            parts += _bars(points, top, (left, plot, high - 18), ink)
            continue
        parts.append(f'<polyline points="{at}" fill="none" stroke="{ink}" stroke-width="1.6"/>')
    parts.append(f"<text x={left} y={high}>{end - start:.0f} s ago</text>")
    parts.append(f'<text x={plot} y={high} text-anchor="end">now</text>')
    drawn = f"<svg width={plot + 4} height={high + 4}>{''.join(parts)}</svg>"
    return drawn + _names(sorted(lines), unit)


def _bars(
    points: list[tuple[float, float]], top: float, room: tuple[int, int, int], ink: str
) -> list[str]:
    left, right, high = room
    wide = min(60.0, (right - left) / len(points) * 0.8)
    return [
        f'<rect x="{left + (right - left) * (n + 0.5) / len(points) - wide / 2:.1f}" '
        f'y="{high * (1 - value / top) + 4:.1f}" width="{wide:.1f}" '
        f'height="{high * value / top:.1f}" fill="{ink}"/>'
        for n, (_, value) in enumerate(points)
    ]


def _names(lines: Sequence[Line], unit: str | None) -> str:
    rows = (
        f'<tr><td><span style="color:{_LINES[n % len(_LINES)]}">&#9632;</span> {escape(name)}'
        f"<td>{escape(shown(points[-1][1], unit))}"
        for n, (name, points) in enumerate(lines[:10])
    )
    return f'<div class="names"><table><tr><th>name<th>last{"".join(rows)}</table></div>'


def _round_up(value: float) -> float:
    if value <= 0:
        return 1.0
    size = 10.0 ** math.floor(math.log10(value))
    return next(step * size for step in (1, 2, 5, 10) if step * size >= value)
