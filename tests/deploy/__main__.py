"""Writes what is made from the chart: `python -m tests.deploy`."""

from __future__ import annotations

from tests.deploy.golden import golden_files
from tests.deploy.manifests import base_files, overlay_files
from tests.deploy.readme import README, readme
from tests.deploy.schema import SCHEMA, schema


def write() -> None:
    """Write the README's table, the schema of values, what deploy/k8s has of the chart, and the golden files."""
    README.write_text(readme(), encoding="utf-8")
    SCHEMA.write_text(schema(), encoding="utf-8")
    for path, text in (base_files() | overlay_files() | golden_files()).items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
