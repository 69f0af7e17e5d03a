"""The parts that dashboards are made of: expressions, panels, rows, variables, and the JSON that Grafana reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
EVERYWHERE = 'namespace=~"$namespace", job=~"$worker"'
"""Selects on Kubernetes, and where there is no label `namespace`: `.*` (All) matches what is not there."""

REPLICA = "pod, instance"
REPLICA_LEGEND = "{{pod}} {{instance}}"

GREEN, YELLOW, RED = "green", "orange", "red"
WIDTH = 24


# -- expressions -------------------------------------------------------------------------------------


def series(metric: str, *matchers: str) -> str:
    """Return a selector of one of stacworker's metrics, named without its prefix."""
    return f"stacworker_{metric}{{{', '.join((EVERYWHERE, *matchers))}}}"


def per_second(metric: str, by: str, *matchers: str) -> str:
    """Return a counter's rate, summed by labels (none: all together)."""
    total = f"sum by ({by})" if by else "sum"
    return f"{total} (rate({series(metric, *matchers)}[$__rate_interval]))"


def quantile(q: float, metric: str, by: str, *matchers: str) -> str:
    """Return a quantile of a histogram, by labels (none: of all together)."""
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({q:g}, {per_second(f'{metric}_bucket', labels, *matchers)})"


def ratio(part: str, whole: str) -> str:
    """Return one expression over another one."""
    return f"{part} / {whole}"


def mean(metric: str, by: str, *matchers: str) -> str:
    """Return the mean of what a histogram observed."""
    return ratio(per_second(f"{metric}_sum", by, *matchers), per_second(f"{metric}_count", by, *matchers))


# -- panels ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on a value is orange, and red; None: never. `below`: small values are the bad ones."""

    warn: float | None = None
    bad: float | None = None
    below: bool = False

    def steps(self) -> list[dict[str, Any]]:
        """Return Grafana's threshold steps, in rising order."""
        if self.below:
            marks = [(None, RED), (self.bad, YELLOW), (self.warn, GREEN)]
        else:
            marks = [(None, GREEN), (self.warn, YELLOW), (self.bad, RED)]
        return [
            {"color": color, "value": value} for n, (value, color) in enumerate(marks) if n == 0 or value is not None
        ]


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel; `queries` are expressions with their legends."""

    title: str
    about: str
    queries: Sequence[tuple[str, str]]
    unit: str
    kind: str = "timeseries"
    limits: Limits = Limits()
    width: int = 8
    height: int = 8
    stacked: bool = False
    at_most: float | None = None

    def as_json(self, number: int, x: int, y: int) -> dict[str, Any]:
        """Return the panel as Grafana reads it, at a place."""
        defaults: dict[str, Any] = {
            "unit": self.unit,
            "min": 0,
            "color": {"mode": "thresholds" if self.kind == "stat" else "palette-classic"},
            "thresholds": {"mode": "absolute", "steps": self.limits.steps()},
        }
        if self.at_most is not None:
            defaults["max"] = self.at_most
        if self.kind == "timeseries":
            defaults["custom"] = self._drawing()
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.about,
            "datasource": DATASOURCE,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "targets": [self._target(n, expression, legend) for n, (expression, legend) in enumerate(self.queries)],
            "fieldConfig": {"defaults": defaults, "overrides": []},
            **_OPTIONS[self.kind](self),
        }

    def _drawing(self) -> dict[str, Any]:
        has_limits = len(self.limits.steps()) > 1
        return {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 25 if self.stacked else 8,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if self.stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "dashed" if has_limits else "off"},
        }

    def _target(self, number: int, expression: str, legend: str) -> dict[str, Any]:
        now = self.kind in {"stat", "table"}
        return {
            "refId": chr(ord("A") + number),
            "datasource": DATASOURCE,
            "expr": expression,
            "legendFormat": legend,
            "range": not now,
            "instant": now,
            "format": {"table": "table", "heatmap": "heatmap"}.get(self.kind, "time_series"),
        }


def _timeseries(_: Panel) -> dict[str, Any]:
    shown = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
    order = {"mode": "multi", "sort": "desc"}
    return {"options": {"legend": shown, "tooltip": order}}


def _stat(panel: Panel) -> dict[str, Any]:
    return {
        "options": {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value",
            "graphMode": "none",
            "textMode": "value_and_name" if len(panel.queries) > 1 else "value",
            "justifyMode": "auto",
            "orientation": "auto",
        }
    }


def _heatmap(panel: Panel) -> dict[str, Any]:
    return {
        "options": {
            "calculate": False,
            "color": {"mode": "scheme", "scheme": "Oranges", "scale": "exponential", "exponent": 0.5, "steps": 64},
            "yAxis": {"unit": panel.unit, "axisPlacement": "left"},
            "cellGap": 1,
            "tooltip": {"show": True, "yHistogram": False},
            "legend": {"show": True},
        }
    }


def _table(_: Panel) -> dict[str, Any]:
    hidden = {"Time": True, "Value": True, "__name__": True, "container": True, "endpoint": True}
    organize = {"id": "organize", "options": {"excludeByName": hidden}}
    return {"options": {"showHeader": True, "cellHeight": "sm"}, "transformations": [organize]}


_OPTIONS = {"timeseries": _timeseries, "stat": _stat, "heatmap": _heatmap, "table": _table}


# -- dashboards --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the top of a dashboard: the values that a label has on a metric."""

    name: str
    label: str
    metric: str
    title: str
    within: str = EVERYWHERE

    def as_json(self) -> dict[str, Any]:
        """Return the variable as Grafana reads it: several values or all, which also matches a missing label."""
        matchers = f"{{{self.within}}}" if self.within else ""
        query = f"label_values(stacworker_{self.metric}{matchers}, {self.label})"
        return {
            "name": self.name,
            "label": self.title,
            "type": "query",
            "datasource": DATASOURCE,
            "definition": query,
            "query": {"query": query, "refId": self.name},
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        }


NAMESPACE = Variable("namespace", "namespace", "build_info", "Namespace", within="")
WORKER = Variable("worker", "job", "build_info", "Worker", within='namespace=~"$namespace"')
QUEUE = Variable("queue", "queue", "messages_received_total", "Queue")
COLLECTION = Variable("collection", "collection", "items_loaded_total", "Collection")
GENERATOR = Variable("generator", "generator", "items_generated_total", "Generator")


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard; `name` is its file's and its address'."""

    name: str
    title: str
    about: str
    variables: Sequence[Variable]
    rows: Sequence[Row]

    def as_json(self) -> dict[str, Any]:
        """Return the dashboard as Grafana reads it."""
        return {
            "uid": f"stacworker-{self.name}",
            "title": f"stacworker / {self.title}",
            "description": self.about,
            "tags": ["stacworker"],
            "schemaVersion": 39,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-3h", "to": "now"},
            "timezone": "",
            "templating": {"list": [_CHOICE_OF_DATASOURCE, *(each.as_json() for each in self.variables)]},
            "annotations": {"list": [_FIRING]},
            "links": [_TO_THE_OTHERS],
            "panels": list(self._panels()),
        }

    def _panels(self) -> Iterator[dict[str, Any]]:
        """Place the panels from left to right, in lines as high as their highest panel."""
        number, y = 0, 0
        for row in self.rows:
            number += 1
            place = {"x": 0, "y": y, "w": WIDTH, "h": 1}
            yield {
                "id": number,
                "type": "row",
                "title": row.title,
                "collapsed": False,
                "gridPos": place,
                "panels": [],
            }
            y += 1
            x = height = 0
            for panel in row.panels:
                if x + panel.width > WIDTH:
                    x, y, height = 0, y + height, 0
                number += 1
                yield panel.as_json(number, x, y)
                x, height = x + panel.width, max(height, panel.height)
            y += height


_CHOICE_OF_DATASOURCE = {
    "name": "datasource",
    "label": "Data source",
    "type": "datasource",
    "query": "prometheus",
    "refresh": 1,
    "current": {},
}
_FIRING = {
    "name": "Alerts",
    "datasource": DATASOURCE,
    "enable": True,
    "iconColor": "red",
    "expr": 'ALERTS{alertname=~"Stacworker.+", alertstate="firing", namespace=~"$namespace", job=~"$worker"}',
    "titleFormat": "{{alertname}}",
    "textFormat": "{{queue}} {{collection}} {{dependency}} {{instance}}",
    "step": "60s",
}
_TO_THE_OTHERS = {
    "type": "dashboards",
    "title": "stacworker",
    "tags": ["stacworker"],
    "asDropdown": True,
    "includeVars": True,
    "keepTime": True,
}
