"""What the chart makes of every scenario is what it made before, and some scenario uses every value."""

from __future__ import annotations

from typing import Any

import yaml

from tests.deploy.chart import CHART, Document
from tests.deploy.comments import entries
from tests.deploy.golden import GOLDEN, golden_files

ADVICE = "run scripts/chart --write, and look at the diff"

SET_ELSEWHERE = {
    "image.digest": "hpa",
    "database.secretArn": "eks-keda",
    "serviceAccount.create": "hpa",
    "migration.enabled": "pipelines",
    "migration.secretArn": "eks-keda",
    "migration.serviceAccount.create": "openshift",
    "monitoring.serviceMonitor.enabled": "hpa",
}
"""Values that switch others off, or do not go with them, and the scenario that sets them."""


def test_every_scenario_renders_what_it_rendered() -> None:
    """A change of any template or default shows in the golden files, and nowhere unseen."""
    expected = golden_files()
    assert set(GOLDEN.iterdir()) == set(expected), ADVICE
    changed = [path.name for path, text in expected.items() if path.read_text(encoding="utf-8") != text]
    assert changed == [], ADVICE


def test_some_scenario_sets_every_value_to_something_else() -> None:
    """`everything` sets each value that README.md explains, but for those that another scenario has to set."""
    explained = entries((CHART / "values.yaml").read_text(encoding="utf-8"))
    same = {
        ".".join(each.path)
        for each in explained
        if all(value in (each.default, MISSING) for value in values_at(scenario("everything"), each.path))
    }
    assert same == set(SET_ELSEWHERE)
    for each in explained:
        if name := SET_ELSEWHERE.get(".".join(each.path)):
            (value,) = values_at(scenario(name), each.path)
            assert value not in (each.default, MISSING), (name, each.path)


MISSING = object()


def scenario(name: str) -> Document:
    values: Document = yaml.safe_load((CHART / "ci" / f"{name}-values.yaml").read_text(encoding="utf-8"))
    return values


def values_at(values: Document, path: tuple[str, ...]) -> list[Any]:
    """Return what is at a path; for a worker's value, what `defaults` and each worker have there."""
    tops = [values, *({"defaults": worker} for worker in values["workers"].values() if path[0] == "defaults")]
    return [at(top, path) for top in tops]


def at(values: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        if not isinstance(values, dict) or key not in values:
            return MISSING
        values = values[key]
    return values
