"""Pictures of dashboards as SVG: the series as Prometheus gave them, drawn as plainly as possible."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from tests.prometheus.expressions import filled
from tests.prometheus.server import Prometheus

_CELL_PX, _LINE_PX, _GAP_PX = 50, 27, 8
_SERIES_MAX = 8
_POINTS = 60
_COLOURS = ("#3274d9", "#e0752d", "#56a64b", "#a352cc", "#e02f44", "#0aa5a5", "#b8860b", "#7a7a7a")
_THRESHOLDS = {"orange": "#e0752d", "red": "#e02f44"}
_STYLE = (
    "text{font:11px sans-serif;fill:#333}.t{font-weight:bold;font-size:12px}.a{fill:#777;font-size:10px}"
    ".n{font-size:24px;fill:#2c662d}.box{fill:#fff;stroke:#ddd}"
)
_SCALES: dict[str, Sequence[tuple[float, str]]] = {
    "bytes": ((1e9, " GB"), (1e6, " MB"), (1e3, " kB")),
    "s": ((3600, " h"), (60, " min"), (1, " s"), (1e-3, " ms")),
    "short": ((1e6, " M"), (1e3, " k")),
}
_SUFFIX = {"mps": "/s", "recps": "/s", "reqps": "/s", "ops": "/s", "bytes": " B"}


def drawn(prometheus: Prometheus, dashboard: Mapping[str, Any], start: float, end: float) -> str:
    """Return a picture of a dashboard between two times. Headings, tables and heatmaps are left out."""
    shown = [panel for panel in dashboard["panels"] if panel["type"] in {"timeseries", "stat"}]
    parts: list[str] = []
    x = y = line = 0
    for panel in shown:
        width, height = panel["gridPos"]["w"], panel["gridPos"]["h"]
        if x + width > 24:
            x, y, line = 0, y + line, 0
        box = (
            x * _CELL_PX + _GAP_PX,
            y * _LINE_PX + _GAP_PX,
            width * _CELL_PX - _GAP_PX,
            height * _LINE_PX - _GAP_PX,
        )
        draw = _stat if panel["type"] == "stat" else _lines
        parts += [
            f'<g transform="translate({box[0]},{box[1]})">',
            *draw(prometheus, panel, box[2:], start, end),
            "</g>",
        ]
        x, line = x + width, max(line, height)
    size = f'width="{24 * _CELL_PX + _GAP_PX}" height="{(y + line) * _LINE_PX + _GAP_PX}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{_STYLE}</style>'
    return "\n".join([head, '<rect width="100%" height="100%" fill="#f4f5f5"/>', *parts, "</svg>", ""])


def _frame(panel: Mapping[str, Any], size: tuple[int, int]) -> list[str]:
    return [
        f'<rect class="box" width="{size[0]}" height="{size[1]}"/>',
        f'<text class="t" x="8" y="17">{escape(panel["title"])}</text>',
    ]


def _stat(
    prometheus: Prometheus, panel: Mapping[str, Any], size: tuple[int, int], start: float, end: float
) -> list[str]:
    del start
    found = prometheus.query_range(filled(panel["targets"][0]["expr"]), end, end, 1)
    value = _told(float(found[0]["values"][-1][1]), panel["fieldConfig"]["defaults"]["unit"]) if found else "no data"
    return [*_frame(panel, size), f'<text class="n" x="8" y="{size[1] - 24}">{value}</text>']


def _lines(
    prometheus: Prometheus, panel: Mapping[str, Any], size: tuple[int, int], start: float, end: float
) -> list[str]:
    lines = []
    for target in panel["targets"]:
        for each in prometheus.query_range(filled(target["expr"]), start, end, max(1.0, (end - start) / _POINTS)):
            points = [(float(at), float(text)) for at, text in each["values"]]
            lines.append((_legend(target["legendFormat"], each["metric"]), [p for p in points if math.isfinite(p[1])]))
    lines = sorted((each for each in lines if each[1]), key=lambda each: -max(value for _, value in each[1]))
    top = max((value for _, points in lines for _, value in points), default=0) or 1.0
    unit = panel["fieldConfig"]["defaults"]["unit"]
    left, right, upper, lower = 8, size[0] - 8, 38, size[1] - 38
    drawing = [
        *_frame(panel, size),
        f'<text class="a" x="{left}" y="{upper - 5}">{_told(top, unit)}</text>',
        f'<path d="M{left} {upper}H{right}M{left} {lower}H{right}" stroke="#e4e4e4"/>',
    ]
    for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]:
        if step["value"] is not None and step["value"] <= top and step["color"] in _THRESHOLDS:
            height = round(lower - step["value"] / top * (lower - upper))
            colour = _THRESHOLDS[step["color"]]
            drawing.append(f'<path d="M{left} {height}H{right}" stroke="{colour}" stroke-dasharray="4 4"/>')
    spot = float(left)
    for colour, (legend, points) in zip(_COLOURS, lines[:_SERIES_MAX], strict=False):
        path = " ".join(
            f"{left + (at - start) / (end - start) * (right - left):.0f},{lower - value / top * (lower - upper):.0f}"
            for at, value in points
        )
        drawing.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.3"/>')
        width = 18 + 6.2 * len(legend)
        if spot + width < right:
            drawing.append(f'<rect x="{spot:.0f}" y="{lower + 14}" width="9" height="4" fill="{colour}"/>')
            drawing.append(f'<text class="a" x="{spot + 12:.0f}" y="{lower + 20}">{escape(legend)}</text>')
        spot += width
    return drawing


def _legend(form: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), form).strip()


def _told(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    for size, name in _SCALES.get(unit, ()):
        if abs(value) >= size:
            return f"{value / size:.3g}{name}"
    return f"{value:.3g}{_SUFFIX.get(unit, '')}"
