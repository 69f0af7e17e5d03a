"""Items that arrive together become lines of one object."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime

import orjson
import pytest

from stacworker.api import Document, Version
from stacworker.envelope.contents import object_forms
from stacworker.envelope.forms import ItemForm, S3Location
from stacworker.errors import Rejected, Transient, Unavailable
from stacworker.inflight import InFlight
from stacworker.load.publish import Bucket, NdjsonSink
from stacworker.load.publish.lines import MAX_BYTES, MAX_LINES
from tests.unit.load.buckets import Stored
from tests.unit.load.documents import collection, item
from tests.unit.load.harness import settled
from tests.unit.load.test_publish import refused_with

IN_FLIGHT = InFlight()
NEVER_S = 300.0


def sink_on(stored: Stored, *, linger_s: float = 0.001) -> NdjsonSink:
    return NdjsonSink(
        Bucket(stored, "b", "out/"), linger_s=linger_s, now=lambda: datetime(2024, 5, 1, 23, 59, tzinfo=UTC)
    )


def ids(data: bytes) -> list[str]:
    return [orjson.loads(line)["id"] for line in data.splitlines()]


async def test_items_of_concurrent_puts_become_one_object_of_their_collection() -> None:
    """It is named for its day and contents, and holds an item a line, which our own reader takes."""
    stored = Stored()
    documents = [item(str(n), text="a\nb é") for n in range(20)]
    other = item("x", collection="d/..")
    async with asyncio.timeout(5), sink_on(stored) as sink:
        await asyncio.gather(*(sink.put([document], IN_FLIGHT) for document in [*documents, other]))
    key = next(key for key in stored.objects if key.startswith("out/c/"))
    data = stored.objects[key]
    other_data = orjson.dumps(other.body) + b"\n"
    assert set(stored.objects) == {
        f"out/c/2024/05/01/{hashlib.sha256(data).hexdigest()[:32]}.ndjson",
        f"out/d%2F../2024/05/01/{hashlib.sha256(other_data).hexdigest()[:32]}.ndjson",
    }
    assert set(stored.types.values()) == {"application/x-ndjson"}
    forms = object_forms(data, S3Location("b", key), Version(1)).forms
    assert [form.body for form in forms if isinstance(form, ItemForm)] == [document.body for document in documents]


async def test_a_put_returns_only_when_s3_has_its_items() -> None:
    """Returning acknowledges the message."""
    stored = Stored()
    stored.gate.clear()
    async with asyncio.timeout(5), sink_on(stored) as sink:
        waiting = asyncio.ensure_future(sink.put([item("x")], IN_FLIGHT))
        while not stored.running:
            await asyncio.sleep(0.001)
        await settled()
        assert not waiting.done()
        stored.gate.set()
        await waiting
    assert len(stored.objects) == 1


async def test_a_full_object_does_not_wait() -> None:
    """A thousand lines are enough, and no object has more."""
    stored = Stored()
    async with asyncio.timeout(10), sink_on(stored, linger_s=NEVER_S) as sink:
        await sink.put([item(str(n)) for n in range(2 * MAX_LINES)], IN_FLIGHT)
    assert [len(ids(data)) for data in stored.objects.values()] == [MAX_LINES] * 2


async def test_objects_are_bounded_in_bytes() -> None:
    """What does not fit goes in the next; an item that fits in none is an object alone."""
    stored = Stored()
    half, more = "t" * (MAX_BYTES // 2 - 1000), "t" * MAX_BYTES
    async with asyncio.timeout(10), sink_on(stored) as sink:
        documents = [item("a", text=half), item("b", text=half), item("c", text=half), item("d", text=more), item("e")]
        await sink.put(documents, IN_FLIGHT)
    assert sorted(ids(data) for data in stored.objects.values()) == [["a", "b"], ["c"], ["d"], ["e"]]


async def test_a_put_waits_no_longer_than_the_linger_for_a_neighbour_that_is_stuck() -> None:
    """An object that S3 does not take holds up nobody else's."""
    stored = Stored()
    stored.gate.clear()
    async with asyncio.timeout(5), sink_on(stored) as sink:
        stuck = asyncio.ensure_future(sink.put([item("stuck")], IN_FLIGHT))
        while not stored.running:
            await asyncio.sleep(0.001)
        held, stored.gate = stored.gate, asyncio.Event()
        stored.gate.set()
        await sink.put([item("quick")], IN_FLIGHT)
        assert not stuck.done()
        held.set()
        await stuck
    assert sorted(ids(data) for data in stored.objects.values()) == [["quick"], ["stuck"]]


async def test_bad_items_cost_no_good_ones() -> None:
    """Each is refused alone, before it meets others."""
    stored = Stored()
    documents = [item("a"), collection("c"), item("", text=""), item("b", bbox=b""), item("x", collection="k" * 1020)]
    async with asyncio.timeout(5), sink_on(stored) as sink:
        good = asyncio.ensure_future(sink.put([item("other")], IN_FLIGHT))
        with pytest.raises(Rejected) as raised:
            await sink.put(documents, IN_FLIGHT)
        await good
    assert [refusal.error.error_class for refusal in raised.value.refusals] == [
        "not_an_item",
        "invalid_item",
        "invalid_item",
        "too_large",
    ]
    assert [sorted(ids(data)) for data in stored.objects.values()] == [["a", "other"]]


async def test_a_collection_whose_object_fails_costs_no_other_collection() -> None:
    """Who put its items hears of it, and only they."""
    stored = Stored(errors={"out/bad/": refused_with("SlowDown", 503)})
    async with asyncio.timeout(5), sink_on(stored) as sink:
        results = await asyncio.gather(
            sink.put([item("a", collection="bad")], IN_FLIGHT),
            sink.put([item("b")], IN_FLIGHT),
            return_exceptions=True,
        )
    assert [type(result) for result in results] == [Unavailable, type(None)]
    assert [ids(data) for data in stored.objects.values()] == [["b"]]


async def test_of_two_states_of_an_item_only_the_newest_is_written() -> None:
    """A reader gives all lines of an object one time, and could not tell."""
    stored = Stored()

    def state(item_id: str, version: int) -> Document:
        return item(item_id, version, state=version)

    async with asyncio.timeout(5), sink_on(stored) as sink:
        await sink.put([state("a", 2), state("b", 1), state("a", 1), state("b", 2)], IN_FLIGHT)
    (data,) = stored.objects.values()
    assert {found["id"]: found["state"] for found in map(orjson.loads, data.splitlines())} == {"a": 2, "b": 2}


async def test_few_objects_are_written_at_once() -> None:
    """Memory holds copies of eight objects, however many collections there are."""
    stored = Stored()
    async with asyncio.timeout(5), sink_on(stored) as sink:
        await sink.put([item("x", collection=f"c{n}") for n in range(50)], IN_FLIGHT)
    assert len(stored.objects) == 50
    assert stored.most_at_once == 8


async def test_leaving_tells_who_waits() -> None:
    """What is not in S3 at the end comes again."""
    stored = Stored()
    async with asyncio.timeout(5), sink_on(stored, linger_s=NEVER_S) as sink:
        waiting = asyncio.ensure_future(sink.put([item("x")], IN_FLIGHT))
        await settled()
    with pytest.raises(Transient):
        await waiting
    assert stored.objects == {}
