"""The fault table."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.chaos.campaign import Plan
from tests.chaos.oracle import KINDS
from tests.chaos.round import Result

Row = tuple[Plan, Result]


def table(rows: Sequence[Row]) -> Table:
    """Return a table with a row for each fault alone and one for the mixed rounds, and their sums."""
    found = Table("fault", "runs", "injected", "messages", "items", "deletes seen", "lost", "duplicated", "other", "s")
    groups: dict[str, list[Row]] = {}
    for plan, result in rows:
        name = plan.name if len(plan.faults) == 1 else "several at once"
        groups.setdefault(name, []).append((plan, result))
    for name, group in groups.items():
        found.add_row(name, *map(_shown, _sums(group)))
    found.add_section()
    found.add_row("all", *map(_shown, _sums(rows)))
    return found


def _sums(rows: Sequence[Row]) -> list[float]:
    results = [result for _, result in rows]
    broken = {kind: sum(result.broken[kind] for result in results) for kind in KINDS}
    return [
        len(results),
        sum(sum(result.injected.values()) for result in results),
        sum(result.messages for result in results),
        sum(result.items for result in results),
        sum(result.deletes_witnessed for result in results),
        broken["lost"],
        broken["duplicated"],
        sum(count for kind, count in broken.items() if kind not in ("lost", "duplicated")),
        sum(result.seconds for result in results),
    ]


def _shown(value: float) -> str:
    return f"{round(value):,}"


def say(text: str) -> None:
    """Write a line."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def show_round(number: int, result: Result) -> None:
    """Write how a round ended, with what was broken."""
    verdict = "ok" if not result.violations else f"BROKEN {dict(result.broken)}"
    injected = ", ".join(f"{name}: {count}" for name, count in result.injected.items())
    say(
        f"{number:3} {verdict}  {injected}; {result.items} items in {result.messages} messages, "
        f"{result.letters} dead letters, {result.seconds:.1f} s (seed {result.seed})"
    )
    for violation in result.violations[:10]:
        say(f"      {violation.kind}: {violation.what}")


def show_table(rows: Sequence[Row]) -> None:
    """Write the table as wide as it needs to be."""
    Console(width=140).print(table(rows))


def write_json(path: Path, seed: int, rows: Sequence[Row]) -> None:
    """Write every round with its seed, faults and violations."""
    rounds: list[dict[str, Any]] = [{"faults": plan.name, **dataclasses.asdict(result)} for plan, result in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"seed": seed, "rounds": rounds}, indent=1) + "\n")
