"""What the shipped alerts, their runbooks and the table of metrics must hold; promtool tries the expressions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase
from typer.main import get_command

from stacworker.cli.commands import app
from stacworker.metrics import Metrics
from tests.prometheus import expressions
from tests.unit.test_dashboards import on_linux, sample_names

DOCS = expressions.ROOT / "docs"
RUNBOOKS = sorted((DOCS / "runbooks").glob("*.md"))
ALERTS = [pytest.param(rule, id=name) for name, rule in expressions.alerts().items()]
HEADINGS = ["## What it means", "## How to look", "## What to do"]


@pytest.mark.parametrize("rule", ALERTS)
def test_alerts_say_how_bad_what_and_where_to_read_on(rule: dict[str, Any]) -> None:
    """Each has a severity, texts, and the address of a page of its own name that exists."""
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert sorted(rule["annotations"]) == ["description", "runbook_url", "summary"]
    name = f"{rule['alert']}.md"
    assert rule["annotations"]["runbook_url"].endswith(f"/docs/runbooks/{name}")
    assert (DOCS / "runbooks" / name).is_file()


@pytest.mark.parametrize("rule", ALERTS)
def test_alerts_are_tested_firing_and_silent(rule: dict[str, Any]) -> None:
    """The tests that promtool runs have both, at least once."""
    tests = yaml.safe_load((expressions.RULES / "tests.yaml").read_text())["tests"]
    tried = [each for test in tests for each in test["alert_rule_test"] if each["alertname"] == rule["alert"]]
    assert {bool(each["exp_alerts"]) for each in tried} == {True, False}


def test_every_alert_is_in_the_documentation() -> None:
    """The table in docs/dashboards.md has each alert with its severity, and no other."""
    rows = re.findall(
        r"^\| \[(\w+)\]\(runbooks/(\w+)\.md\) \| (\w+) \|", (DOCS / "dashboards.md").read_text(), re.MULTILINE
    )
    assert sorted(rows) == sorted(
        (name, name, rule["labels"]["severity"]) for name, rule in expressions.alerts().items()
    )


def test_alerts_are_asked_for_what_they_compare() -> None:
    """Against a healthy worker no comparison hides that a series is missing: each is one that answers 0 or 1."""
    asked = {each.where.removeprefix("rule "): each.text for each in expressions.of_rules()}
    assert asked["StacworkerNoSuccess"] == (
        "queue:stacworker_backlog:messages > bool 0\n"
        "  and on (namespace, queue)\n"
        'sum by (namespace, queue) (rate(stacworker_messages_total{outcome="acked"}[15m])) == bool 0\n'
    )
    for name in expressions.alerts():
        comparisons = re.findall(r"(?:==|>|<) (?!bool )", asked[name])
        assert comparisons == []
        assert "bool" in asked[name]


@on_linux
def test_rules_ask_only_for_what_there_is() -> None:
    """Every series of a rule is one of stacworker's, or one that a rule records."""
    recorded = {rule["record"] for rule in expressions.rules() if "record" in rule}
    for rule in expressions.rules():
        named = set(re.findall(r"(?<![\w:])(?:\w+:)?stacworker_\w+(?::\w+)?", rule["expr"]))
        assert named <= sample_names() | recorded, rule
        assert named


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_runbooks_answer_three_questions(page: Path) -> None:
    """Each is of an alert, and says what it means, how to look and what to do."""
    text = page.read_text()
    assert page.stem in expressions.alerts()
    assert text.startswith(f"# {page.stem}\n")
    assert re.findall(r"^## .*", text, re.MULTILINE) == HEADINGS


@on_linux
@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_runbooks_name_what_exists(page: Path) -> None:
    """Commands, metrics, and pages with their headings are there."""
    text = page.read_text()
    commands = get_command(app).commands  # type: ignore[attr-defined]
    for name, more in re.findall(r"`stacworker ([a-z]+)(?: ([a-z]+))?", text):
        assert name in commands
        if hasattr(commands[name], "commands"):
            assert more in commands[name].commands
    families = {family.name for family in Metrics().registry.collect()}
    recorded = {rule["record"] for rule in expressions.rules() if "record" in rule}
    for name in re.findall(r"(?<![\w:])(?:\w+:)?stacworker_\w+(?::\w+)?", text):
        assert name in families | sample_names() | recorded | {"stacworker_reason"}  # an attribute of dead letters
    for target, heading in re.findall(r"\]\(([^)#:]+)(?:#([^)]+))?\)", text):
        linked = (page.parent / target).resolve()
        assert linked.is_file()
        if heading:
            anchors = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            assert heading in {anchor.lower().replace(" ", "-") for anchor in anchors}


@on_linux
def test_the_table_of_metrics_is_complete() -> None:
    """Names, types and labels in docs/metrics.md are those of stacworker/metrics.py, in their order."""
    metrics = Metrics()
    declared = [
        (f"{metric._name}{'_total' * (metric._type == 'counter')}", metric._type, list(metric._labelnames))
        for metric in vars(metrics).values()
        if isinstance(metric, MetricWrapperBase)
    ]
    of_process = [
        (f"{family.name}{'_total' * (family.type == 'counter')}", family.type, [])
        for family in sorted(metrics.registry.collect(), key=lambda family: family.name)
        if family.name.startswith("stacworker_process_")
    ]
    rows = re.findall(r"^\| `(stacworker_\w+)` \| (\w+) \| (.*?) \|", (DOCS / "metrics.md").read_text(), re.MULTILINE)
    assert [(name, kind, re.findall(r"`(\w+)`", labels)) for name, kind, labels in rows] == declared + of_process


@on_linux
def test_a_process_tells_of_itself() -> None:
    """Memory, CPU and start time are there: dashboards and the alert on restarts ask for them."""
    value = Metrics().registry.get_sample_value
    assert (value("stacworker_process_resident_memory_bytes") or 0) > 1_000_000
    assert (value("stacworker_process_start_time_seconds") or 0) > 1_000_000_000
    assert value("stacworker_process_cpu_seconds_total") is not None
