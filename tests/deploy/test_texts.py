"""What is written from values.yaml and stacworker's settings is in step with them; needs no Helm."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from tests.deploy.chart import CHART, ROOT
from tests.deploy.comments import unexplained
from tests.deploy.readme import README, readme
from tests.deploy.schema import SCHEMA, schema

ADVICE = "run scripts/chart --write"


def test_the_readme_says_what_the_values_say() -> None:
    """The table in README.md is made from the comments of values.yaml."""
    assert README.read_text(encoding="utf-8") == readme(), ADVICE


def test_every_value_is_explained() -> None:
    """No value is without a comment that gets into README.md."""
    assert unexplained((CHART / "values.yaml").read_text(encoding="utf-8")) == []


def test_the_schema_is_that_of_values_and_settings() -> None:
    """values.schema.json has the shape of values.yaml and the settings of this stacworker."""
    assert SCHEMA.read_text(encoding="utf-8") == schema(), ADVICE


def test_links_in_the_documentation_lead_somewhere() -> None:
    """Every file that the chart's pages link to is there."""
    for page in (README, ROOT / "docs" / "kubernetes.md"):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert Path(page.parent, target).exists(), f"{page.name}: {target}"


def test_examples_in_the_documentation_are_json_and_yaml() -> None:
    """Every policy and every file of values in docs/kubernetes.md can be read by what it is meant for."""
    text = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```(json|yaml)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    assert [language for language, _ in examples] == ["json", "yaml", "json", "json"]
    for language, example in examples:
        assert json.loads(example) if language == "json" else yaml.safe_load(example)
