"""The sink in memory: takes and refuses as loading does, and says well what is wrong."""

from __future__ import annotations

import pytest

from stacworker.errors import Rejected, Unavailable
from stacworker.inflight import InFlight
from stacworker.testing.sink import MemorySink
from tests.unit.load.documents import collection, delete, item, item_body

IN_FLIGHT = InFlight()


async def test_the_newest_state_of_an_item_stays() -> None:
    """Whatever the order; a delete removes what is not newer."""
    sink = MemorySink()
    await sink.put([item("a", 2, n=2), item("a", 1, n=1), item("a", 3, collection="d"), item("b", 1)], IN_FLIGHT)
    assert [(found["id"], found.get("n")) for found in sink.items("c")] == [("a", 2), ("b", None)]
    await sink.put([delete("a", 1), delete("b", 1)], IN_FLIGHT)
    assert sink.items() == [item_body("a", n=2), item_body("a", "d")]


async def test_putting_twice_is_harmless() -> None:
    """As for every sink."""
    sink = MemorySink()
    for _ in range(2):
        await sink.put([item("a"), collection("c")], IN_FLIGHT)
    assert (sink.items(), list(sink.collections)) == ([item_body("a")], ["c"])


async def test_what_loading_refuses_is_refused() -> None:
    """With the same reason; the good items are there."""
    sink = MemorySink()
    with pytest.raises(Rejected) as raised:
        await sink.put([item("a"), item("b", geometry=None), collection("c", extent=None)], IN_FLIGHT)
    assert [refusal.error.error_class for refusal in raised.value.refusals] == [
        "invalid_geometry",
        "invalid_collection",
    ]
    sink.assert_loaded("a")
    sink.assert_refused("b", match="geometry is null")


async def test_an_outage_can_be_played() -> None:
    """Put and ping raise it until it is taken back."""
    sink = MemorySink()
    sink.unavailable = Unavailable("gone", dependency="database")
    with pytest.raises(Unavailable):
        await sink.ping()
    with pytest.raises(Unavailable):
        await sink.put([item("a")], IN_FLIGHT)
    sink.unavailable = None
    await sink.put([item("a")], IN_FLIGHT)


async def test_failures_say_what_is_there_instead() -> None:
    """The reader of a failed test need not ask a debugger."""
    sink = MemorySink()
    with pytest.raises(Rejected):
        await sink.put([item("a"), item("b", geometry=None)], IN_FLIGHT)
    with pytest.raises(AssertionError) as raised:
        sink.assert_loaded("a", "b", "x")
    assert str(raised.value) == (
        "not loaded: 'b', 'x'\n"
        "loaded: 'c/a'\n"
        "refused: \n"
        "  'b': item 'b' from message body: geometry is null or missing; pgstac needs one [invalid_geometry]"
    )
    with pytest.raises(AssertionError, match="not loaded in collection 'd': 'a'"):
        sink.assert_loaded("a", collection="d")
    with pytest.raises(AssertionError, match="not refused: 'a'"):
        sink.assert_refused("a")
    with pytest.raises(AssertionError, match="'b' was refused, but no reason matches 'bbox':\n  item 'b'"):
        sink.assert_refused("b", match="bbox")
