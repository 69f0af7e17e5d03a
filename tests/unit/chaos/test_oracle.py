"""The oracle finds what is wrong: it would be worth nothing if it could not."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from tests.chaos.oracle import Letter, Row, judge
from tests.chaos.workload import Copy, Maker, Workload


@pytest.fixture
def workload() -> Workload:
    """Give a small workload with everything in it."""
    maker = Maker(Random(7), "bucket")
    maker.singles(3)
    maker.bundles(2, 4)
    maker.objects(2, 5)
    maker.moving(6, versions=3, ties=2)
    maker.bad(4)
    return maker.workload()


def rows_of(workload: Workload) -> list[Row]:
    """Return the rows of a catalogue in which all is well."""
    return [row_of(copy) for copy in workload.winners.values()]


def row_of(copy: Copy) -> Row:
    """Return the row of one copy."""
    return Row(copy.collection, copy.id, copy.rev, copy.datetime, copy.longitude)


def letters_of(workload: Workload) -> list[Letter]:
    """Return the dead letters of a round in which all is well."""
    return [Letter(f"something {mark} is about", "a reason") for mark in workload.marks]


def kinds(workload: Workload, rows: list[Row], letters: list[Letter], left: tuple[str, ...] = ()) -> list[str]:
    """Return the kinds of broken promises that the oracle sees."""
    return [each.kind for each in judge(workload, rows, letters, left)]


def test_is_content_when_all_is_well(workload: Workload) -> None:
    """Every item once, in its newest version, and a letter for each bad part: nothing to say."""
    assert kinds(workload, rows_of(workload), letters_of(workload)) == []
    assert len(workload.marks) == 4
    assert len(workload.winners) == 3 + 2 * 4 + 2 * 5 + 6 + 8


def test_sees_a_lost_item(workload: Workload) -> None:
    """An item that is nowhere is lost; while its message waits in the queue it is not."""
    rows, letters = rows_of(workload), letters_of(workload)
    assert kinds(workload, rows[1:], letters) == ["lost"]
    (parcel,) = {parcel for parcel in workload.parcels if any(copy.key == rows[0].key for copy in parcel.copies)} or [
        None
    ]
    assert parcel is not None
    gone = {copy.key for copy in parcel.copies}
    assert kinds(workload, [row for row in rows if row.key not in gone], letters, (parcel.body,)) == []


def test_sees_a_twin(workload: Workload) -> None:
    """Two rows of one item are one too many, also when both are right."""
    rows = rows_of(workload)
    assert kinds(workload, [*rows, rows[0]], letters_of(workload)) == ["duplicated"]


@pytest.mark.parametrize("change", [{"rev": "rev-000000"}, {"datetime": "2020-01-01T00:00:00Z"}, {"longitude": 1.234}])
def test_sees_an_item_that_is_not_as_it_was_sent_last(workload: Workload, change: dict[str, str | float]) -> None:
    """An older version, another time or another geometry in an item's place is noticed."""
    first, *rows = rows_of(workload)
    assert kinds(workload, [replace(first, **change), *rows], letters_of(workload)) == ["outdated"]


def test_knows_which_version_wins(workload: Workload) -> None:
    """Of the versions of an item the newest is expected; between equal ones the later time, then the content."""
    moved = [key for key in workload.winners if sum(copy.key == key for copy in workload.copies()) > 3]
    assert moved
    for key in moved:
        copies = sorted({copy for copy in workload.copies() if copy.key == key}, key=lambda each: each.age)
        rows = [row for row in rows_of(workload) if row.key != key]
        assert kinds(workload, [*rows, row_of(copies[-1])], letters_of(workload)) == []
        assert kinds(workload, [*rows, row_of(copies[-2])], letters_of(workload)) == ["outdated"]


def test_sees_what_nobody_sent(workload: Workload) -> None:
    """A row of an item that was never sent is noticed."""
    stray = replace(rows_of(workload)[0], id="stray")
    assert kinds(workload, [*rows_of(workload), stray], letters_of(workload)) == ["invented"]


def test_sees_wrong_dead_letters(workload: Workload) -> None:
    """A good message among the dead letters, a bad one that is missing there, and a letter without a reason."""
    rows, letters = rows_of(workload), letters_of(workload)
    assert kinds(workload, rows, [*letters, Letter("good", "deadlock")]) == ["dead_lettered"]
    assert kinds(workload, rows, letters[1:]) == ["not_dead_lettered"]
    assert kinds(workload, rows, [*letters[1:], replace(letters[0], reason="")]) == ["not_dead_lettered"]
    assert kinds(workload, rows, [*letters, letters[0]]) == []


def test_the_same_seed_makes_the_same_workload() -> None:
    """A round can be run again."""

    def made(seed: int) -> Workload:
        maker = Maker(Random(seed), "bucket")
        maker.objects(2, 3)
        maker.moving(5, versions=2, ties=1)
        return maker.workload()

    assert made(3) == made(3)
    assert made(3) != made(4)
