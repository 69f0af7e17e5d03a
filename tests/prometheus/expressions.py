"""Every expression that is shipped: of panels, variables and rules, in a form that Prometheus can answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DASHBOARDS = ROOT / "deploy" / "grafana"
RULES = ROOT / "deploy" / "prometheus"
RULE_FILES = ("alerts.yaml", "recording.yaml")

ALL = {"namespace": ".*", "worker": ".*", "queue": ".*", "collection": ".*", "generator": ".*"}
"""What Grafana puts in for the choice All."""
_TIMES = {"$__rate_interval": "20s", "$__range": "5m"}

ONLY_IN_AN_OUTAGE = "stacworker_circuit_open"
"""A series of this metric appears with a process's first outage: empty before is right, and empty during is wrong."""
ONLY_WHEN_ALL_ARE_GONE = "absent("
"""What asks for this is empty as long as anything is scraped."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One expression, and where it stands."""

    where: str
    text: str

    @property
    def needs(self) -> str:
        """Say when it has an answer: `load`, `outage`, or `silence`."""
        if ONLY_IN_AN_OUTAGE in self.text:
            return "outage"
        return "silence" if ONLY_WHEN_ALL_ARE_GONE in self.text else "load"


def dashboards() -> list[dict[str, Any]]:
    """Return the dashboards as they are shipped."""
    return [json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))]


def panels() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield every panel with its dashboard; headings are none."""
    for dashboard in dashboards():
        for panel in dashboard["panels"]:
            if panel["type"] != "row":
                yield dashboard, panel


def rules() -> list[dict[str, Any]]:
    """Return the rules of all files."""
    files = [yaml.safe_load((RULES / name).read_text()) for name in RULE_FILES]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    """Return the alerts by name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def filled(expression: str, chosen: Mapping[str, str] = ALL) -> str:
    """Put values in for Grafana's variables; raises ValueError when one is left."""
    for name, value in _TIMES.items():
        expression = expression.replace(name, value)
    for name, value in chosen.items():
        expression = expression.replace(f"${name}", value)
    if "$" in expression:
        raise ValueError(f"a variable that nobody fills in: {expression}")
    return expression


def of_panels(chosen: Mapping[str, str] = ALL) -> list[Asked]:
    """Return every panel's expressions. What only hides an empty answer (`or vector(0)`) is taken off."""
    return [
        Asked(
            f"{dashboard['title']}: {panel['title']} {target['refId']}",
            filled(target["expr"], chosen).removesuffix(" or vector(0)"),
        )
        for dashboard, panel in panels()
        for target in panel["targets"]
    ]


def of_variables(chosen: Mapping[str, str] = ALL) -> list[tuple[str, str, str]]:
    """Return each variable as where it stands, the selector of its series, and its label."""
    found = []
    for dashboard in dashboards():
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                query = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"])
                assert query is not None, variable["definition"]
                found.append((f"{dashboard['title']}: ${variable['name']}", filled(query[1], chosen), query[2]))
    return found


def of_rules() -> list[Asked]:
    """Return every rule's expression; of alerts, what they compare.

    With `bool` a comparison answers 0 or 1 instead of nothing: the answer is empty only where a series is missing,
    or where labels do not match.
    """
    return [
        Asked(
            f"rule {rule.get('alert') or rule['record']}",
            re.sub(r"(==|>|<) (?=\d+(?:\.\d+)?\s*$)", r"\1 bool ", rule["expr"], flags=re.MULTILINE)
            if "alert" in rule
            else rule["expr"],
        )
        for rule in rules()
    ]
