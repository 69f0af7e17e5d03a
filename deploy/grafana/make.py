"""Write the dashboards as JSON, and the copies of dashboards and rules that the Helm chart holds.

python -m deploy.grafana.make            writes what is out of step
python -m deploy.grafana.make --check    names it instead, and fails
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.grafana.collection import COLLECTIONS
from deploy.grafana.database import DATABASE
from deploy.grafana.fleet import FLEET
from deploy.grafana.generators import GENERATORS
from deploy.grafana.overview import OVERVIEW

ROOT = Path(__file__).parents[2]
RULES = ("alerts.yaml", "recording.yaml")
DASHBOARDS = (OVERVIEW, COLLECTIONS, DATABASE, GENERATORS, FLEET)

_GRAFANA = ROOT / "deploy" / "grafana"
_PROMETHEUS = ROOT / "deploy" / "prometheus"
_CHART = ROOT / "helm" / "stacworker" / "files"


def wanted() -> dict[Path, str]:
    """Return the content of every file that is made, by its place."""
    files: dict[Path, str] = {}
    for dashboard in DASHBOARDS:
        text = json.dumps(dashboard.as_json(), indent=2, ensure_ascii=False) + "\n"
        name = f"stacworker-{dashboard.name}.json"
        files[_GRAFANA / name] = files[_CHART / "dashboards" / name] = text
    for name in RULES:
        files[_CHART / "rules" / name] = (_PROMETHEUS / name).read_text()
    return files


def out_of_step(files: Mapping[Path, str]) -> list[Path]:
    """Return the files that differ from what is made, are missing, or are no longer made."""
    differing = [path for path, text in files.items() if not path.is_file() or path.read_text() != text]
    made_folders = (_GRAFANA.glob("*.json"), *((_CHART / kind).glob("*") for kind in ("dashboards", "rules")))
    return differing + [path for folder in made_folders for path in folder if path not in files]


def main(arguments: Sequence[str]) -> int:
    """Write or check; return the exit code."""
    files = wanted()
    changed = sorted(out_of_step(files))
    if "--check" in arguments:
        for path in changed:
            print(f"{path.relative_to(ROOT)} is out of step: run python -m deploy.grafana.make")
        return 1 if changed else 0
    for path in changed:
        if path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[path])
        else:
            path.unlink()
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
