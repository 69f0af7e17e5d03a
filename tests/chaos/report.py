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


_SHOWN = ("lost", "duplicated", "outdated", "dead_lettered")
"""The kinds of broken promises that have a column of their own."""
_COLUMNS = ("runs", "injected", "messages", "items", "deletes seen", "lost", "twice", "outdated", "wrongly dead")


def table(rows: Sequence[Row]) -> Table:
    """Return a table with a row for each fault alone and one for the mixed rounds, and their sums."""
    found = Table("fault")
    for name in (*_COLUMNS, "other", "verdict", "s"):
        found.add_column(name, justify="right")
    groups: dict[str, list[Row]] = {}
    for plan, result in rows:
        groups.setdefault("several at once" if plan.mixed else plan.name, []).append((plan, result))
    for name, group in groups.items():
        found.add_row(name, *_sums(group))
    found.add_section()
    found.add_row("all", *_sums(rows))
    return found


def _sums(rows: Sequence[Row]) -> list[str]:
    results = [result for _, result in rows]
    broken = {kind: sum(result.broken[kind] for result in results) for kind in KINDS}
    injected = sum(sum(result.injected.values()) for result in results)
    numbers = [
        len(results),
        injected,
        sum(result.messages for result in results),
        sum(result.items for result in results),
        sum(result.deletes_witnessed for result in results),
        *(broken[kind] for kind in _SHOWN),
        sum(count for kind, count in broken.items() if kind not in _SHOWN),
    ]
    verdict = "BROKEN" if any(broken.values()) else "kept" if injected else "idle"
    return [*(f"{number:,}" for number in numbers), verdict, f"{sum(result.seconds for result in results):.0f}"]


def say(text: str) -> None:
    """Write a line."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def show_round(plan: Plan, result: Result) -> None:
    """Write how a round ended, with what was broken."""
    verdict = "ok" if not result.violations else f"BROKEN {dict(result.broken)}"
    injected = ", ".join(f"{name}: {count}" for name, count in result.injected.items())
    say(
        f"{plan.number:3} {verdict}  {injected}; {result.items} items in {result.messages} messages, "
        f"{result.letters} dead letters, {result.seconds:.1f} s (seed {result.seed})"
    )
    for violation in result.violations[:10]:
        say(f"      {violation.kind}: {violation.what}")


def show_table(rows: Sequence[Row]) -> None:
    """Write the table as wide as it needs to be."""
    Console(width=150).print(table(rows))


def write_json(path: Path, seed: int, rows: Sequence[Row]) -> None:
    """Write every round with its seed, faults and violations."""
    rounds: list[dict[str, Any]] = [{"faults": plan.name, **dataclasses.asdict(result)} for plan, result in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"seed": seed, "rounds": rounds}, indent=1) + "\n")
