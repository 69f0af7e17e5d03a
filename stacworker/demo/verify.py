"""Compares what became of everything with what was planned, to the item."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from stacworker.demo.messages import NAIP, SEARCHED_YEAR, Bad, Plan
from stacworker.demo.worker import Counts

SEARCH: Mapping[str, Any] = {
    "collections": [NAIP],
    "datetime": f"{SEARCHED_YEAR}-01-01T00:00:00Z/{SEARCHED_YEAR}-12-31T23:59:59Z",
    "sortby": [{"field": "datetime", "direction": "desc"}],
    "limit": 10_000,
}
"""What the demo searches for at the end: the tiles of one year, newest first."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message of a dead-letter queue, with the reason that its attributes give."""

    body: str
    error_class: str
    reason: str


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What pgstac holds: how often each collection and id, and what the search returned."""

    rows: Counter[tuple[str, str]]
    found: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Observed:
    """What there is at the end: the worker's counts and exit code, the catalogue, dead letters, and the queues."""

    counts: Counts
    exit_code: int
    catalogue: Catalogue
    letters: Sequence[DeadLetter]
    waiting: int


async def look_up(dsn: str) -> Catalogue:
    """Count the rows of the catalogue, and search it."""
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch("SELECT collection, id, count(*) AS n FROM pgstac.items GROUP BY 1, 2")
        await connection.execute("SET search_path TO pgstac, public")
        answer = json.loads(await connection.fetchval("SELECT search($1::jsonb)", json.dumps(SEARCH)))
    finally:
        await connection.close()
    return Catalogue(Counter({(row["collection"], row["id"]): row["n"] for row in rows}), answer["features"])


def read_dead_letter(message: Mapping[str, Any]) -> DeadLetter:
    """Read a dead letter as SQS returns it."""
    attributes = message.get("MessageAttributes", {})

    def text(name: str) -> str:
        return str(attributes.get(f"stacworker_{name}", {}).get("StringValue", ""))

    return DeadLetter(message["Body"], text("error_class"), text("reason"))


def match(plan: Plan, letters: Sequence[DeadLetter]) -> list[tuple[Bad, list[DeadLetter]]]:
    """Return each bad document with its dead letters: one, when all went well."""
    return [(bad, [letter for letter in letters if bad.mark in letter.body]) for bad in plan.bad]


def problems(plan: Plan, observed: Observed) -> list[str]:
    """Return everything that is not as planned, a line each; none: nothing was lost, nothing is there twice."""
    rows = observed.catalogue.rows
    found = [f"missing from the catalogue: {collection}/{item}" for collection, item in sorted(plan.good - set(rows))]
    found += [f"in the catalogue, unasked: {collection}/{item}" for collection, item in sorted(set(rows) - plan.good)]
    found += [f"{n} times in the catalogue: {key[0]}/{key[1]}" for key, n in sorted(rows.items()) if n > 1]
    for bad, own in match(plan, observed.letters):
        if len(own) != 1:
            found.append(f"{bad.kind}: {len(own)} dead letters instead of 1")
        found += [f"{bad.kind}: its dead letter gives no reason" for letter in own if not letter.reason]
    found += [
        f"a dead letter that nobody planned: {letter.reason or letter.body[:200]}"
        for letter in observed.letters
        if not any(bad.mark in letter.body for bad in plan.bad)
    ]
    if observed.counts.ended != plan.messages:
        found.append(f"{plan.messages} messages were sent, {observed.counts.ended} came to an end")
    if observed.waiting:
        found.append(f"{observed.waiting} messages are still in the queues")
    if sorted(item["id"] for item in observed.catalogue.found) != sorted(plan.searched):
        found.append(f"the search found {len(observed.catalogue.found)} items, not the {len(plan.searched)} it should")
    if observed.exit_code != 0:
        found.append(f"the worker ended with exit code {observed.exit_code} instead of 0")
    return found
