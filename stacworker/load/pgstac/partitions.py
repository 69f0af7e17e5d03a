"""The partitions ("leaves") of a collection, and which time ranges their constraints allow. Pure.

pgstac partitions items by collection and, if the collection's `partition_trunc` says so, by month or year of
`datetime` in UTC. Each leaf has CHECK constraints on the ranges of `datetime` and `end_datetime`. Widening
them locks out every reader, so ranges are asked for as wide as they may ever need to be: once per leaf.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

Trunc = Literal["month", "year"] | None

_FIRST = datetime.min.replace(tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A partition; `first` and `last` are the datetimes that it may hold, both inclusive, UTC."""

    name: str
    first: datetime
    last: datetime

    def holds(self, when: datetime) -> bool:
        """Say whether an item of this datetime belongs here."""
        return self.first <= when <= self.last


@dataclass(frozen=True, slots=True)
class Span:
    """Times of rows, inclusive: `datetime` from `first` to `last`, `end_datetime` from `first` to `last_end`."""

    first: datetime
    last: datetime
    last_end: datetime

    def covers(self, other: Span) -> bool:
        """Say whether rows with the other span fit in this one."""
        return self.first <= other.first and other.last <= self.last and other.last_end <= self.last_end

    def including(self, other: Span | None) -> Span:
        """Return the least span that covers both."""
        if other is None:
            return self
        return Span(min(self.first, other.first), max(self.last, other.last), max(self.last_end, other.last_end))


class Partitions:
    """What is known of one collection's leaves: those that exist, and the spans that are known to fit."""

    def __init__(self, key: int, trunc: Trunc, leaves: Iterable[Leaf] = ()) -> None:
        self.root = f"_items_{key}"
        """The collection's own table: the only leaf, or the parent of all."""
        self.trunc = trunc
        self._allowed: dict[str, Span] = {}
        self._leaves: list[Leaf] = []
        self._firsts: list[datetime] = []
        for leaf in leaves:
            self.add(leaf)

    @property
    def whole(self) -> Leaf:
        """The only leaf of a collection that is not partitioned by time."""
        return Leaf(self.root, _FIRST, _LAST)

    @property
    def empty(self) -> bool:
        """True when the collection has no leaves, so no items."""
        return not self._leaves

    def add(self, leaf: Leaf) -> None:
        """Note that a leaf exists."""
        self._leaves = sorted({*self._leaves, leaf}, key=lambda each: each.first)
        self._firsts = [each.first for each in self._leaves]

    def leaf_of(self, when: datetime) -> Leaf:
        """Return the leaf for a datetime: the one that exists, else the one that pgstac would make.

        Leaves that a session outside UTC made begin and end at odd hours; they are used as they are.
        """
        index = bisect_right(self._firsts, when) - 1
        if index >= 0 and when <= self._leaves[index].last:
            return self._leaves[index]
        if self.trunc is None:
            return self.whole
        first, last = _month(when) if self.trunc == "month" else _years(when, when)
        suffix = f"{when.year:04}{when.month:02}" if self.trunc == "month" else f"{when.year:04}"
        return Leaf(f"{self.root}_{suffix}", first, last)

    def wanted(self, leaf: Leaf, span: Span) -> Span | None:
        """Return the span to ask for so that rows with `span` fit in a leaf; None where they do already."""
        allowed = self._allowed.get(leaf.name)
        if allowed is not None and allowed.covers(span):
            return None
        first, last = (leaf.first, leaf.last) if self.trunc else _years(span.first, span.last)
        last_end = last if span.last_end <= last else _years(span.last_end, span.last_end)[1]
        return Span(first, last, last_end).including(allowed)

    def allow(self, leaf: Leaf, span: Span) -> None:
        """Note that the constraints of a leaf, which exists, allow a span."""
        self.add(leaf)
        self._allowed[leaf.name] = span


def _month(when: datetime) -> tuple[datetime, datetime]:
    first = datetime(when.year, when.month, 1, tzinfo=UTC)
    if (when.year, when.month) == (_LAST.year, _LAST.month):
        return first, _LAST
    return first, datetime(when.year + when.month // 12, when.month % 12 + 1, 1, tzinfo=UTC) - _TICK


def _years(first: datetime, last: datetime) -> tuple[datetime, datetime]:
    end = _LAST if last.year == _LAST.year else datetime(last.year + 1, 1, 1, tzinfo=UTC) - _TICK
    return datetime(first.year, 1, 1, tzinfo=UTC), end
