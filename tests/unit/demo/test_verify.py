"""The demo's verdict: nothing lost, nothing twice, every bad document told."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from stacworker.demo.messages import NAIP, Plan, plan
from stacworker.demo.rasters import Granule, make_granules
from stacworker.demo.verify import Catalogue, DeadLetter, Observed, problems, read_dead_letter
from stacworker.demo.worker import Counts, read_counts

GRANULES = [
    Granule(Path("m_3208701_ne_16_060_20190401.tif"), "al", date(2019, 4, 1)),
    Granule(Path("m_3208702_ne_16_060_20200401.tif"), "al", date(2020, 4, 1)),
]


@pytest.fixture
def planned(tmp_path: Path) -> Plan:
    """Plan for two granules."""
    return plan(GRANULES, tmp_path, "bucket")


@pytest.fixture
def good(planned: Plan) -> Observed:
    """Observe what is as planned."""
    return Observed(
        counts=Counts(acked=planned.messages - len(planned.bad), dead_lettered=len(planned.bad)),
        exit_code=0,
        catalogue=Catalogue(Counter(planned.good), [{"id": item_id} for item_id in planned.searched]),
        letters=[DeadLetter(f"… {bad.mark} …", "invalid_item", "because") for bad in planned.bad],
        waiting=0,
    )


def test_as_planned(planned, good):
    """When all is where it belongs there is nothing to tell."""
    assert problems(planned, good) == []


def test_a_lost_item_is_told(planned, good):
    """An item that is missing is named, and so is the search that does not find it."""
    key = (NAIP, GRANULES[1].item_id)
    rows = good.catalogue.rows - Counter([key])

    assert problems(planned, replace(good, catalogue=Catalogue(rows, []))) == [
        f"missing from the catalogue: naip/{GRANULES[1].item_id}",
        "the search found 0 items, not the 1 it should",
    ]


def test_an_item_twice_is_told(planned, good):
    """Two rows for one item, and items that nobody sent, are told."""
    key = (NAIP, GRANULES[0].item_id)
    rows = good.catalogue.rows + Counter([key, ("other", "x")])

    assert problems(planned, replace(good, catalogue=replace(good.catalogue, rows=rows))) == [
        "in the catalogue, unasked: other/x",
        f"2 times in the catalogue: naip/{GRANULES[0].item_id}",
    ]


def test_dead_letters_are_counted_one_by_one(planned, good):
    """A dead letter that is missing, without a reason, or of something good is told."""
    letters = [replace(good.letters[1], reason=""), *good.letters[2:], DeadLetter("good", "refused", "no")]

    assert problems(planned, replace(good, letters=letters)) == [
        "a message that is not JSON: 0 dead letters instead of 1",
        "an item without geometry: its dead letter gives no reason",
        "a dead letter that nobody planned: no",
    ]


def test_an_unclean_end_is_told(planned, good):
    """Messages without an outcome or in the queues, and an exit code, are told."""
    observed = replace(good, counts=Counts(), waiting=3, exit_code=1)

    assert problems(planned, observed) == [
        f"{planned.messages} messages were sent, 0 came to an end",
        "3 messages are still in the queues",
        "the worker ended with exit code 1 instead of 0",
    ]


def test_dead_letters_are_read_from_their_attributes():
    """The reason is what the attributes say, and empty where they say nothing."""
    attributes = {
        "stacworker_reason": {"StringValue": "because", "DataType": "String"},
        "stacworker_error_class": {"StringValue": "invalid_item", "DataType": "String"},
    }

    assert read_dead_letter({"Body": "b", "MessageAttributes": attributes}) == DeadLetter(
        "b", "invalid_item", "because"
    )
    assert read_dead_letter({"Body": "b"}) == DeadLetter("b", "", "")


def test_counts_are_sums_over_labels():
    """The worker's metrics are summed up over queues, collections and generators."""
    text = """
# TYPE stacworker_messages_received_total counter
stacworker_messages_received_total{queue="a"} 3.0
stacworker_messages_received_total{queue="b"} 4.0
# TYPE stacworker_messages_total counter
stacworker_messages_total{queue="a",outcome="acked"} 2.0
stacworker_messages_total{queue="b",outcome="acked"} 2.0
stacworker_messages_total{queue="b",outcome="dead_lettered"} 1.0
stacworker_messages_total{queue="b",outcome="retried"} 1.0
# TYPE stacworker_items_loaded_total counter
stacworker_items_loaded_total{collection="x"} 9.0
# TYPE stacworker_items_generated_total counter
stacworker_items_generated_total{generator="g",outcome="ok"} 5.0
stacworker_items_generated_total{generator="g",outcome="generator_error"} 1.0
"""

    counts = read_counts(text)

    assert counts == Counts(received=7, acked=4, dead_lettered=1, retried=1, generated=5, loaded=9)
    assert counts.ended == 5


def test_every_granule_has_a_place_and_a_date_of_its_own(tmp_path):
    """Tiles have names that stactools-naip reads, ids that differ, and dates over more than two years."""
    granules = list(make_granules(tmp_path, 30))

    assert len({granule.item_id for granule in granules}) == 30
    assert {granule.year for granule in granules} == {"2019", "2020", "2021"}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(granule.path.name for granule in granules)
