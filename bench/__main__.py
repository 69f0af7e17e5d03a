"""Run all benchmarks and write their table: `scripts/bench`.

Each runs as a process of its own, one after the other; results stand as JSON in `bench/results`, the table in
`docs/benchmarks.md`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import typer

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
BENCHMARKS = ("sink", "engine", "objects", "stactools", "pipelines", "versions", "memory", "replicas")
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def main(only: list[str] | None = None) -> None:
    """Run all benchmarks, or those named with --only, and rewrite the results in docs/benchmarks.md."""
    RESULTS.mkdir(exist_ok=True)
    for name in only or BENCHMARKS:
        file = RESULTS / f"{name}.json"
        subprocess.run([sys.executable, "-m", f"bench.{name}", "--json", str(file)], cwd=ROOT, check=True)
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    tables = [
        _table(json.loads(file.read_text())) for name in BENCHMARKS if (file := RESULTS / f"{name}.json").exists()
    ]
    PAGE.write_text(before + "\n".join([BEGIN, "", *tables, END]) + after)


def _table(found: dict[str, Any]) -> str:
    lines = [
        f"### {found['benchmark']}",
        "",
        f"{found['about']}.",
        "",
        "| | value | ratio | wanted |",
        "| --- | ---: | ---: | --- |",
    ]
    for row in found["rows"]:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        value = f"{row['value']:,.0f}" if row["value"] >= 100 else f"{row['value']:.3g}"
        lines.append(f"| {row['name']} | {value} | {ratio} | {row['target']} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    typer.run(main)
