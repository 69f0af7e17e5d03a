"""What a load does with each row, given what the catalogue has under the same ids. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from stacworker.api import Version
from stacworker.load.pgstac.rows import LeafRows, Row
from stacworker.load.pgstac.versions import is_newer, stored_version
from stacworker.settings import Conflict


@dataclass(frozen=True, slots=True)
class Held:
    """A row that the catalogue has: in which leaf, at which datetime, with which `private` column."""

    leaf: str
    datetime: dt.datetime
    private: dict[str, Any]

    @property
    def version(self) -> Version | None:
        """The version that it was loaded with; None where somebody else wrote it."""
        return stored_version(self.private)


@dataclass(slots=True)
class Plan:
    """What to do by leaf, and what became of the ids already decided about.

    `inserts` are rows whose ids are new, `upserts` those that replace another row, `deletes` the ids of rows
    in leaves that an upsert is not for.
    """

    inserts: dict[str, list[Row]] = field(default_factory=dict)
    upserts: dict[str, list[Row]] = field(default_factory=dict)
    deletes: dict[str, list[str]] = field(default_factory=dict)
    loaded: set[str] = field(default_factory=set)
    superseded: set[str] = field(default_factory=set)
    conflicting: set[str] = field(default_factory=set)

    def keep(self, row: Row, held: Sequence[Held], conflict: Conflict) -> None:
        """Note that the catalogue keeps what it has instead of a row."""
        if any(each.version == row.version for each in held):
            # The same document came before, perhaps in a delivery that ended without an acknowledgement.
            self.loaded.add(row.id)
        elif conflict == "error":
            self.conflicting.add(row.id)
        else:
            self.superseded.add(row.id)


def make_plan(
    batch: Sequence[LeafRows],
    held: Mapping[str, Sequence[Held]],
    deleted: Mapping[str, Version],
    conflict: Conflict,
) -> Plan:
    """Decide about every row of a batch.

    `held` are the catalogue's rows by id, `deleted` the versions of remembered deletions. Whatever a row
    replaces in another leaf is deleted there, so that one row is left.
    """
    plan = Plan()
    for part in batch:
        for row in part.rows:
            there = held.get(row.id, ())
            if row.id in deleted and deleted[row.id] >= row.version:
                plan.superseded.add(row.id)
            elif there and (conflict != "upsert" or _beaten(row, there)):
                plan.keep(row, there, conflict)
            elif there:
                plan.upserts.setdefault(part.leaf.name, []).append(_moved(row, part.leaf.name, there, plan))
            else:
                plan.inserts.setdefault(part.leaf.name, []).append(row)
    return plan


def _beaten(row: Row, held: Sequence[Held]) -> bool:
    return any(is_newer(each.version, each.datetime, row.version, row.datetime) for each in held)


def _moved(row: Row, leaf: str, held: Sequence[Held], plan: Plan) -> Row:
    """Plan the end of a row's twins, and return the row with what others keep in their `private` column."""
    for twin in held:
        if twin.leaf != leaf:
            plan.deletes.setdefault(twin.leaf, []).append(row.id)
            row = replace(row, private={**twin.private, **(row.private or {})})
    return row
