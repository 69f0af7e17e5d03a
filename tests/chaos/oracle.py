"""What must be true when a round is over: every item in place once, in its newest version, or a dead letter.

Pure: it compares what was sent with what was found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.chaos.workload import Copy, Key, Workload

KINDS = (
    "lost",
    "duplicated",
    "outdated",
    "unfindable",
    "invented",
    "dead_lettered",
    "not_dead_lettered",
    "deleted_early",
    "stalled",
    "unclean",
)
"""What may go wrong: an item is nowhere, has several rows, is not the newest,
is not found by search, or was never sent; a good message
became a dead letter, a bad one did not; a message was deleted before its items were committed; messages are
left over; a worker did not end well or met something that nobody foresaw."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of `pgstac.items`; `longitude` is of its geometry."""

    collection: str
    id: str
    rev: str
    datetime: str
    longitude: float

    @property
    def key(self) -> Key:
        """Which item it is a row of."""
        return self.collection, self.id


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter; `text` is its body and `reason` what its attributes say."""

    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise; `kind` is one of KINDS."""

    kind: str
    what: str


def judge(
    workload: Workload, rows: Iterable[Row], letters: Sequence[Letter], left: Sequence[str] = ()
) -> list[Violation]:
    """Return all broken promises. `left` are the bodies of messages that are still in the queue."""
    winners = workload.winners
    found: dict[Key, list[Row]] = {}
    for row in rows:
        found.setdefault(row.key, []).append(row)
    waiting = {copy.key for parcel in workload.parcels if parcel.body in set(left) for copy in parcel.copies}
    violations = [
        *_judge_items(winners, found, waiting),
        *(Violation("invented", f"{key} was never sent") for key in found.keys() - winners.keys()),
        *_judge_letters(workload, letters, left),
    ]
    return sorted(violations, key=lambda each: (each.kind, each.what))


def _judge_items(winners: dict[Key, Copy], found: dict[Key, list[Row]], waiting: set[Key]) -> Iterable[Violation]:
    for key, winner in winners.items():
        rows = found.get(key, [])
        if not rows:
            if key not in waiting:
                yield Violation("lost", f"{key} is nowhere")
            continue
        if len(rows) > 1:
            yield Violation("duplicated", f"{key} has {len(rows)} rows")
        for row in rows:
            if key not in waiting and not _is(row, winner):
                yield Violation("outdated", f"{row} is in place of {winner}")


def _is(row: Row, copy: Copy) -> bool:
    return (row.rev, row.datetime, round(row.longitude, 2)) == (copy.rev, copy.datetime, copy.longitude)


def _judge_letters(workload: Workload, letters: Sequence[Letter], left: Sequence[str]) -> Iterable[Violation]:
    marks = workload.marks
    seen: Counter[str] = Counter()
    for letter in letters:
        of_letter = [mark for mark in marks_in(letter.text) if mark in marks]
        seen.update(of_letter)
        if not of_letter:
            yield Violation("dead_lettered", f"a good message ({letter.reason}): {letter.text[:200]}")
        elif not letter.reason:
            yield Violation("not_dead_lettered", f"{of_letter} is a dead letter without a reason")
    still = {mark for parcel in workload.parcels if parcel.body in set(left) for mark in parcel.marks}
    for mark in marks - seen.keys() - still:
        yield Violation("not_dead_lettered", f"{mark} left no dead letter")


def marks_in(text: str) -> set[str]:
    """Return the marks of bad parts that stand in a dead letter."""
    return {text[at : at + 10] for at in range(len(text)) if text.startswith("bad-", at)}
