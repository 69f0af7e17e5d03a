"""What the shipped dashboards must be, whoever looks at them."""

from __future__ import annotations

import re
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from deploy.grafana import make
from stacworker.metrics import Metrics
from tests.prometheus import expressions

PANELS = [
    pytest.param(dashboard, panel, id=f"{dashboard['uid']}-{panel['id']}") for dashboard, panel in expressions.panels()
]
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="a process tells of its memory and CPU on Linux only")
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def sample_names() -> set[str]:
    """Return the names of all series that a worker has on some day."""
    return {
        f"{family.name}{suffix}" for family in Metrics().registry.collect() for suffix in SUFFIXES.get(family.type, ())
    }


def test_files_are_what_the_code_makes() -> None:
    """The committed JSON and the chart's copies are in step with code and rules."""
    assert make.out_of_step(make.wanted()) == []


def test_what_is_out_of_step_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that differs, one that is missing, and one that nobody makes are named, and made right or removed."""
    monkeypatch.setattr(make, "ROOT", tmp_path)
    monkeypatch.setattr(make, "_GRAFANA", tmp_path / "grafana")
    monkeypatch.setattr(make, "_CHART", tmp_path / "chart")
    (tmp_path / "prometheus").mkdir()
    monkeypatch.setattr(make, "_PROMETHEUS", tmp_path / "prometheus")
    for name in make.RULES:
        (tmp_path / "prometheus" / name).write_text(f"# {name}\n")
    assert make.main([]) == 0
    files = sorted(make.wanted())
    assert len(files) == 2 * len(make.DASHBOARDS) + len(make.RULES)
    assert make.main(["--check"]) == 0
    differs, missing, foreign = files[0], files[-1], tmp_path / "grafana" / "stacworker-old.json"
    differs.write_text("{}")
    missing.unlink()
    foreign.write_text("{}")
    assert sorted(make.out_of_step(make.wanted())) == sorted([differs, missing, foreign])
    assert make.main(["--check"]) == 1
    assert make.main([]) == 0
    assert (make.out_of_step(make.wanted()), foreign.exists()) == ([], False)


def test_dashboards_have_addresses_of_their_own() -> None:
    """Grafana finds a dashboard by its uid, and a panel by its number."""
    found = expressions.dashboards()
    assert sorted(each["uid"] for each in found) == sorted(f"stacworker-{each.name}" for each in make.DASHBOARDS)
    for each in found:
        numbers = [panel["id"] for panel in each["panels"]]
        assert numbers == sorted(set(numbers))


def test_every_dashboard_asks_for_source_namespace_and_worker() -> None:
    """These variables come first, and All matches series that lack the label (no namespace without Kubernetes)."""
    for each in expressions.dashboards():
        variables = each["templating"]["list"]
        assert [variable["name"] for variable in variables[:3]] == ["datasource", "namespace", "worker"]
        assert {variable.get("allValue") for variable in variables[1:]} == {".*"}


@pytest.mark.parametrize(("dashboard", "panel"), PANELS)
def test_panels_say_what_they_show(dashboard: dict[str, Any], panel: dict[str, Any]) -> None:
    """Each has a description, a unit, thresholds, legends, and takes the chosen data source."""
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"]
    values = [step["value"] for step in defaults["thresholds"]["steps"]]
    assert values[0] is None
    assert values[1:] == sorted(values[1:])
    assert all(target["legendFormat"] for target in panel["targets"])
    legends = [target["legendFormat"] for target in panel["targets"]]
    assert len(set(legends)) == len(legends)


@on_linux
@pytest.mark.parametrize(("dashboard", "panel"), PANELS)
def test_panels_ask_only_for_what_there_is(dashboard: dict[str, Any], panel: dict[str, Any]) -> None:
    """Every series is one of stacworker's, narrowed by namespace and worker, with variables the dashboard has."""
    names = sample_names()
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    for target in panel["targets"]:
        selectors = re.findall(r"(stacworker_\w+)\{([^}]*)\}", target["expr"])
        assert selectors, target["expr"]
        assert {name for name, _ in selectors} <= names
        assert all('namespace=~"$namespace", job=~"$worker"' in matchers for _, matchers in selectors)
        assert set(re.findall(r"\$([a-z]+)", target["expr"])) <= variables


def test_panels_do_not_overlap() -> None:
    """No two panels of a dashboard share a place, and none is wider than the page."""
    for dashboard in expressions.dashboards():
        places = [panel["gridPos"] for panel in dashboard["panels"]]
        assert all(place["x"] + place["w"] <= 24 for place in places)
        for one, other in combinations(places, 2):
            apart = (
                one["x"] + one["w"] <= other["x"]
                or other["x"] + other["w"] <= one["x"]
                or one["y"] + one["h"] <= other["y"]
                or other["y"] + other["h"] <= one["y"]
            )
            assert apart, (dashboard["title"], one, other)


def test_no_variable_is_left_when_an_expression_is_asked() -> None:
    """What stands for Grafana puts in every value, and refuses what it does not know."""
    assert not [each.text for each in expressions.of_panels() if "$" in each.text]
    with pytest.raises(ValueError, match="nobody fills in"):
        expressions.filled("up{job=~'$unknown'}")


def test_every_panel_has_a_picture() -> None:
    """A picture for each dashboard, with the titles of its panels; scripts/prometheus --pictures draws them."""
    for dashboard in expressions.dashboards():
        drawn = (expressions.ROOT / "docs" / "pictures" / f"{dashboard['uid']}.svg").read_text()
        titles = [panel["title"] for panel in dashboard["panels"] if panel["type"] in {"timeseries", "stat"}]
        assert [title for title in titles if f">{title.replace(chr(39), '&#x27;')}<" not in drawn] == []
