"""What a load does with a row, given what the catalogue has."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import pytest

from stacworker.api import Version
from stacworker.load.pgstac.partitions import Leaf
from stacworker.load.pgstac.plan import Held, Plan, make_plan
from stacworker.load.pgstac.rows import LeafRows, Row
from stacworker.load.pgstac.versions import as_object, is_newer, stored_version, with_version

EARLY, LATE = dt.datetime(2020, 1, 5, tzinfo=dt.UTC), dt.datetime(2020, 2, 5, tzinfo=dt.UTC)


def row(version: int, when: dt.datetime = EARLY, private: dict[str, Any] | None = None) -> Row:
    return Row("a", b"", when, when, "{}", Version(version), private)


def held(version: int | None, when: dt.datetime = EARLY, leaf: str = "jan", **private: Any) -> Held:
    kept = {} if version is None else as_object(with_version(None, Version(version)))
    return Held(leaf, when, {**private, **kept})


def planned(new: Row, there: Sequence[Held], conflict: Any = "upsert", deleted: int | None = None) -> Plan:
    leaf = Leaf("jan" if new.datetime == EARLY else "feb", new.datetime, new.datetime)
    deletions = {} if deleted is None else {"a": Version(deleted)}
    return make_plan([LeafRows(leaf, [new])], {"a": there} if there else {}, deletions, conflict)


def test_a_new_id_is_inserted() -> None:
    """Whatever the setting for conflicts."""
    for conflict in ("upsert", "ignore", "error"):
        assert planned(row(1), [], conflict) == Plan(inserts={"jan": [row(1)]})


@pytest.mark.parametrize("version", [None, 1, 2])
def test_what_is_not_newer_is_replaced(version: int | None) -> None:
    """An older version, the same one (the content decides in SQL), and what somebody else wrote."""
    assert planned(row(2), [held(version)]) == Plan(upserts={"jan": [row(2)]})


def test_what_is_newer_stays() -> None:
    """Here and in another partition, where the item has moved meanwhile."""
    for there in (held(3), held(3, LATE, "feb")):
        assert planned(row(2), [there]) == Plan(superseded={"a"})


def test_an_item_that_moves_leaves_no_twin() -> None:
    """Its row elsewhere is deleted; what others keep in its private column goes along."""
    moved = planned(row(2, LATE, {"mine": 1}), [held(1, mine=0, theirs=2)])
    private = {"theirs": 2, "mine": 1, **as_object(with_version(None, Version(1)))}
    assert moved == Plan(upserts={"feb": [row(2, LATE, private)]}, deletes={"jan": ["a"]})


def test_of_equal_versions_the_later_datetime_stays() -> None:
    """Two writers agree, whichever comes first."""
    assert planned(row(2, EARLY), [held(2, LATE, "feb")]) == Plan(loaded={"a"})
    assert planned(row(2, LATE), [held(2, EARLY)]).deletes == {"jan": ["a"]}


def test_ignore_keeps_and_error_complains() -> None:
    """But an item that was loaded before in the same version is no conflict: the message came twice."""
    assert planned(row(2), [held(1)], "ignore") == Plan(superseded={"a"})
    assert planned(row(2), [held(1, LATE, "feb")], "error") == Plan(conflicting={"a"})
    assert planned(row(2), [held(2)], "error") == Plan(loaded={"a"})


def test_a_deletion_is_remembered() -> None:
    """An older item stays out, a newer one comes back."""
    assert planned(row(2), [], deleted=2) == Plan(superseded={"a"})
    assert planned(row(3), [], deleted=2) == Plan(inserts={"jan": [row(3)]})


@pytest.mark.parametrize(
    "private",
    [None, "null", "5", "[]", "{}", '{"stacworker": 1}', '{"stacworker": {}}', '{"stacworker": {"v": "1"}}',
     '{"stacworker": {"v": true}}'],
)  # fmt: skip
def test_what_is_no_version_is_none(private: str | None) -> None:
    """Anybody may write to the private column."""
    assert stored_version(as_object(private)) is None


def test_a_version_is_kept_and_read_back() -> None:
    """Beside what else is there, replacing what was there of ours."""
    private = with_version({"mine": 1, "stacworker": "forged"}, Version(5, "0A"))
    assert as_object(private) == {"mine": 1, "stacworker": {"v": 5, "s": "0A"}}
    assert stored_version(as_object(private)) == Version(5, "0A")


def test_versions_order_by_time_then_sequencer_then_datetime() -> None:
    """A row without a version is older than everything."""
    assert is_newer(Version(2), EARLY, Version(1), LATE)
    assert is_newer(Version(1, "B"), EARLY, Version(1, "A"), LATE)
    assert is_newer(Version(1), LATE, Version(1), EARLY)
    assert not is_newer(Version(1), EARLY, Version(1), EARLY)
    assert not is_newer(None, LATE, Version(1), EARLY)
