"""Which partition an item belongs to, and how wide its constraints are asked for."""

from __future__ import annotations

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from stacworker.load.pgstac.partitions import Leaf, Partitions, Span

LAST = dt.datetime.max.replace(tzinfo=dt.UTC)
TICK = dt.timedelta(microseconds=1)

times = st.datetimes(timezones=st.just(dt.UTC))


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def test_leaves_are_named_as_pgstac_names_them() -> None:
    """By the collection's key and the month or year in UTC; one leaf where nothing is truncated."""
    when = at("2021-11-03T16:00:00")
    assert [Partitions(7, trunc).leaf_of(when) for trunc in (None, "year", "month")] == [
        Leaf("_items_7", dt.datetime.min.replace(tzinfo=dt.UTC), LAST),
        Leaf("_items_7_2021", at("2021-01-01"), at("2022-01-01") - TICK),
        Leaf("_items_7_202111", at("2021-11-01"), at("2021-12-01") - TICK),
    ]


def test_the_last_month_ends_with_time() -> None:
    """There is no year 10000 to begin after it."""
    assert Partitions(7, "month").leaf_of(LAST) == Leaf("_items_7_999912", at("9999-12-01"), LAST)
    assert Partitions(7, "year").leaf_of(LAST) == Leaf("_items_7_9999", at("9999-01-01"), LAST)


@given(times, st.sampled_from(["month", "year", None]))
def test_a_leaf_holds_what_it_is_for(when: dt.datetime, trunc: str | None) -> None:
    """Whatever the time, and the whole of it is one month or year."""
    leaf = Partitions(7, trunc).leaf_of(when)  # type: ignore[arg-type] # sampled
    assert leaf.holds(when)
    assert Partitions(7, trunc).leaf_of(leaf.first) == Partitions(7, trunc).leaf_of(leaf.last) == leaf  # type: ignore[arg-type] # sampled


def test_a_leaf_that_exists_is_used_as_it_is() -> None:
    """A session outside UTC made its bounds; pgstac cannot make another one there."""
    odd = Leaf("_items_7_202111", at("2021-11-01T05:00:00"), at("2021-12-01T05:00:00") - TICK)
    partitions = Partitions(7, "month", [odd])
    assert partitions.leaf_of(at("2021-12-01T04:00:00")) == odd
    assert partitions.leaf_of(at("2021-11-01T04:00:00")).name == "_items_7_202111"
    assert partitions.leaf_of(at("2021-12-01T05:00:00")).name == "_items_7_202112"


def test_a_leaf_is_widened_to_all_of_itself_at_once() -> None:
    """So that the next items of its month need no DDL; ends beyond it are rounded up to a year."""
    partitions = Partitions(7, "month")
    leaf = partitions.leaf_of(at("2021-11-03"))
    one = Span(at("2021-11-03"), at("2021-11-03"), at("2021-11-03"))
    wanted = partitions.wanted(leaf, one)
    assert wanted == Span(leaf.first, leaf.last, leaf.last)
    partitions.allow(leaf, wanted)
    assert partitions.wanted(leaf, Span(leaf.first, leaf.last, leaf.last)) is None
    assert partitions.wanted(leaf, Span(leaf.first, leaf.last, at("2021-12-01"))) == Span(
        leaf.first, leaf.last, at("2022-01-01") - TICK
    )


def test_the_only_leaf_is_widened_by_whole_years() -> None:
    """And never to less than it allows already."""
    partitions = Partitions(7, None)
    year = Span(at("2021-01-01"), at("2022-01-01") - TICK, at("2022-01-01") - TICK)
    assert partitions.wanted(partitions.whole, Span(at("2021-05-05"), at("2021-06-06"), at("2021-06-07"))) == year
    partitions.allow(partitions.whole, year)
    assert partitions.wanted(partitions.whole, Span(at("2019-05-05"), at("2019-05-05"), at("2023-06-07"))) == Span(
        at("2019-01-01"), at("2022-01-01") - TICK, at("2024-01-01") - TICK
    )


@given(st.lists(st.tuples(times, times, times).map(sorted), min_size=1, max_size=4), st.sampled_from(["month", None]))
def test_what_was_asked_for_is_enough(spans: list[list[dt.datetime]], trunc: str | None) -> None:
    """Rows fit once their span, and any span before, was asked for and allowed."""
    partitions = Partitions(7, trunc)  # type: ignore[arg-type] # sampled
    for first, last, last_end in spans:
        leaf = partitions.leaf_of(first)
        span = Span(first, min(last, leaf.last), last_end)
        wanted = partitions.wanted(leaf, span)
        if wanted is not None:
            assert wanted.covers(span)
            partitions.allow(leaf, wanted)
        assert partitions.wanted(leaf, span) is None
