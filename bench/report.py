"""Print a benchmark's rows as a table and keep them as JSON."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Row:
    """One figure; `ratio` compares it with its baseline within the same run, `target` is what it should be."""

    name: str
    value: float
    ratio: float | None = None
    target: str = ""


def machine() -> str:
    """Say what the figures were measured on."""
    return f"Python {platform.python_version()}, {os.cpu_count()} cores"


def write(name: str, about: str, rows: list[Row], json_file: str = "") -> None:
    """Print the table; write it to `json_file` too, if one is named."""
    width = max(len(row.name) for row in rows)
    print(f"{name}: {about}")
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:8.2f}×"
        print(f"  {row.name:<{width}} {row.value:12,.3f} {ratio:>10} {row.target}")
    if json_file:
        found = {"benchmark": name, "about": about, "rows": [asdict(row) for row in rows]}
        Path(json_file).write_text(json.dumps(found, indent=2) + "\n")
