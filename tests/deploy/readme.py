"""The table of values in the chart's README.md."""

from __future__ import annotations

import json

from tests.deploy.chart import CHART
from tests.deploy.comments import entries

README = CHART / "README.md"
_BEGIN = "<!-- values: made from the comments of values.yaml by scripts/chart --write -->"
_END = "<!-- /values -->"


def readme() -> str:
    """Return README.md as it has to be: what stands there, with the table of the values as they are."""
    before, _, rest = README.read_text(encoding="utf-8").partition(_BEGIN)
    _, _, after = rest.partition(_END)
    rows = ["| value | default | |", "| --- | --- | --- |"]
    for each in entries((CHART / "values.yaml").read_text(encoding="utf-8")):
        default = json.dumps(each.default, ensure_ascii=False)
        rows.append(f"| `{'.'.join(each.path)}` | `{_cell(default)}` | {_cell(each.text)} |")
    return "\n".join([before + _BEGIN, *rows, _END]) + after


def _cell(text: str) -> str:
    return text.replace("|", r"\|")
