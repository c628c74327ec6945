"""Bars as SVG: one row a case, one bar a series, the figure at its end.

Written by hand, because two dozen rectangles need no plotting library: its ten packages and sixty
megabytes would be locked, audited and installed for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_WIDTH, _LEFT, _RIGHT, _TOP = 860, 270, 70, 78
_BAR, _GAP = 17, 14
_COLOURS = ("#0969da", "#8c959f", "#d0d7de")
_STYLE = (
    ".page{fill:#ffffff}.title{font-weight:600;font-size:16px;fill:#1f2328}"
    ".word{fill:#1f2328}.figure{fill:#424a53;font-size:12.5px}.say{fill:#59636e;font-size:12.5px}"
)


@dataclass(frozen=True, slots=True)
class Chart:
    """`rows`: a label, and a figure for each series."""

    title: str
    unit: str
    series: Sequence[str]
    rows: Sequence[tuple[str, Sequence[float]]]
    decimals: int = 0

    def svg(self) -> str:
        """The picture."""
        row_px = len(self.series) * _BAR + _GAP
        height = _TOP + len(self.rows) * row_px + 8
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
            'font-family="system-ui, sans-serif" font-size="14">',
            f"<title>{escape(self.title)}</title><style>{_STYLE}</style>",
            f'<rect class="page" width="{_WIDTH}" height="{height}"/>',
            f'<text class="title" x="16" y="28">{escape(self.title)}</text>',
            *self._legend(),
        ]
        for number, (label, figures) in enumerate(self.rows):
            parts += self._row(_TOP + number * row_px, label, figures)
        return "\n".join([*parts, "</svg>", ""])

    def _legend(self) -> list[str]:
        parts, x = [], 16.0
        for name, colour in zip(self.series, _COLOURS, strict=False):
            parts.append(f'<rect x="{x:.0f}" y="45" width="13" height="13" fill="{colour}"/>')
            parts.append(f'<text class="say" x="{x + 19:.0f}" y="56">{escape(name)}</text>')
            x += 40 + 7.2 * len(name)
        parts.append(
            f'<text class="say" x="{_WIDTH - 16}" y="56" text-anchor="end">'
            f"{escape(self.unit)}</text>"
        )
        return parts

    def _row(self, top: float, label: str, figures: Sequence[float]) -> list[str]:
        middle = top + len(figures) * _BAR / 2 + 5
        parts = [
            f'<text class="word" x="{_LEFT - 12}" y="{middle:.1f}" text-anchor="end">'
            f"{escape(label)}</text>"
        ]
        for at, (figure, colour) in enumerate(zip(figures, _COLOURS, strict=False)):
            y, width = top + at * _BAR, max(1.0, figure * self._px_per_unit())
            parts.append(
                f'<rect x="{_LEFT}" y="{y:.1f}" width="{width:.1f}" height="{_BAR - 3}" '
                f'rx="2" fill="{colour}"/>'
            )
            parts.append(
                f'<text class="figure" x="{_LEFT + width + 6:.1f}" y="{y + _BAR - 6:.1f}">'
                f"{figure:,.{self.decimals}f}</text>"
            )
        return parts

    def _px_per_unit(self) -> float:
        most = max((figure for _, figures in self.rows for figure in figures), default=1.0)
        return (_WIDTH - _LEFT - _RIGHT) / (most or 1.0)
