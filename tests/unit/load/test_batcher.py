"""Batches per collection: when they go, who hears what, and that nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from stacworker.errors import Permanent, Transient, Unavailable
from stacworker.load.pgstac import Busy
from stacworker.load.prepare import Prepared
from stacworker.testing.catalogue import FakeCatalogue
from tests.unit.load.harness import Bench, bad, bench, make, settled, told


async def test_a_batch_goes_when_nothing_more_can_come() -> None:
    """A lone message does not wait for the batch to fill."""
    async with bench() as b:
        assert await b.submit(make("x")) == [None]
        assert b.versions() == {"x": 1}
        assert b.counts() == {"loaded": 1, "superseded": 0, "rejected": 0, "buffered": 0}
        assert b.count("batch_items_sum") == 1
        assert b.count("batch_wait_seconds_count") == 1


async def test_a_batch_goes_when_it_is_full() -> None:
    """The messages of one batch are loaded together and all return."""
    async with bench(max_batch_items=3) as b:
        tasks = [b.start(make(item_id), in_flight=b.more) for item_id in "xyz"]
        assert await asyncio.gather(*tasks) == [[None]] * 3
        assert b.batches() == [("x", "y", "z")]


async def test_a_batch_is_left_to_fill_while_more_may_come() -> None:
    """A batch that is not full waits, counted as buffered, until the queue has no more."""
    async with bench() as b:
        task = b.start(make("x"), in_flight=b.more)
        await settled()
        assert (b.batches(), b.counts()["buffered"]) == ([], 1)
        b.more.expect_more(more=False)
        assert await task == [None]


async def test_a_batch_goes_when_its_wait_is_over() -> None:
    """An item waits no longer than the setting says, whatever comes."""
    async with bench(max_batch_wait_s=0.01) as b:
        assert await b.submit(make("x"), in_flight=b.more) == [None]
        assert b.count("batch_wait_seconds_sum") >= 0.01


async def test_the_wait_starts_anew_with_what_a_full_batch_leaves() -> None:
    """The items that did not fit into a batch go when their own wait is over."""
    async with bench(max_batch_items=2, max_batch_wait_s=0.01) as b:
        tasks = [b.start(make(item_id), in_flight=b.more) for item_id in "xyz"]
        assert await asyncio.gather(*tasks) == [[None]] * 3
        assert b.batches() == [("x", "y"), ("z",)]


async def test_a_batch_is_limited_in_bytes() -> None:
    """A batch goes when its bytes are reached; a single item may be larger than that."""
    async with bench(max_batch_bytes=100) as b:
        sizes = {"small": 60, "too much": 60, "huge": 500, "last": 10}
        items = [make(item_id, size=size) for item_id, size in sizes.items()]
        assert await b.submit(*items) == [None] * 4
        assert b.batches() == [("small",), ("too much",), ("huge",), ("last",)]


async def test_items_gather_while_the_collection_is_busy() -> None:
    """What comes while all slots load makes one next batch, although nothing more can come."""
    async with bench() as b:
        b.catalogue.pause("c")
        tasks = [b.start(make("first"))]
        await b.catalogue.reached(1)
        for number in range(5):
            tasks.append(b.start(make(str(number))))
            await settled()
        assert (b.batches(), b.counts()["buffered"]) == ([("first",)], 5)
        await b.catalogue.resume()
        await asyncio.gather(*tasks)
        assert b.batches() == [("first",), ("0", "1", "2", "3", "4")]


async def test_a_collection_loads_as_many_batches_at_once_as_it_may() -> None:
    """Batches go up to the limit; those that are not full wait for a slot."""
    async with bench(max_concurrency=2) as b:
        b.catalogue.pause("c")
        tasks = []
        for number in range(4):
            tasks.append(b.start(make(str(number))))
            await settled()
        assert b.batches() == [("0",), ("1",)]
        await b.catalogue.resume()
        await asyncio.gather(*tasks)
        assert (b.batches()[2:], b.catalogue.most_at_once) == ([("2", "3")], 2)


async def test_one_full_batch_goes_ahead_of_its_slot() -> None:
    """The catalogue is given one batch more than it may load, to make its rows meanwhile, if it is full."""
    async with bench(max_batch_items=2) as b:
        b.catalogue.pause("c")
        task = b.start(*(make(str(number)) for number in range(5)))
        await b.catalogue.reached(2)
        await settled()
        assert b.batches() == [("0", "1"), ("2", "3")]
        await b.catalogue.resume()
        await task
        assert (b.batches()[2:], b.catalogue.most_at_once) == ([("4",)], 2)


async def test_collections_do_not_wait_for_each_other() -> None:
    """While one collection hangs, another loads."""
    async with bench() as b:
        b.catalogue.pause("a")
        stuck = b.start(make("x", collection="a"))
        assert await b.submit(make("y", collection="b")) == [None]
        assert not stuck.done()
        await b.catalogue.resume()
        assert await stuck == [None]


async def test_a_stalled_queue_does_not_flush_the_lanes_of_another() -> None:
    """A message that has to go takes along only what waits in its collection."""
    async with bench() as b:
        other = b.start(make("x", collection="a"), in_flight=b.more)
        await settled()
        await b.submit(make("y", collection="b"))
        assert not other.done()
        b.more.expect_more(more=False)
        await other


async def test_one_message_may_span_batches_and_collections() -> None:
    """The verdicts come in the order of the items, when the last batch is done."""
    async with bench(max_batch_items=2) as b:
        items = [make(str(number), collection="ab"[number % 2], bad=number == 3) for number in range(7)]
        assert told(await b.submit(*items)) == [
            None,
            None,
            None,
            ("refused", "b", "3", "invalid input: 3 (message body)"),
            None,
            None,
            None,
        ]
        assert b.counts("a") == {"loaded": 4, "superseded": 0, "rejected": 0, "buffered": 0}
        assert b.counts("b") == {"loaded": 2, "superseded": 0, "rejected": 1, "buffered": 0}


async def test_nothing_submitted_returns_at_once() -> None:
    """A message without items waits for nobody."""
    async with bench() as b:
        assert await b.submit() == []


async def test_the_newest_version_in_a_batch_wins() -> None:
    """Of one id only the newest is sent; the others are done with it, in whatever order they came."""
    async with bench(max_batch_items=3) as b:
        tasks = [b.start(make("x", version), in_flight=b.more) for version in (2, 3, 1)]
        assert await asyncio.gather(*tasks) == [[None]] * 3
        assert (b.versions(), b.batches()) == ({"x": 3}, [("x",)])
        assert b.counts() == {"loaded": 1, "superseded": 2, "rejected": 0, "buffered": 0}
        assert b.count("batch_items_sum") == 1


@pytest.mark.parametrize("order", ["pq", "qp"])
async def test_content_decides_between_equal_versions(order: str) -> None:
    """The order of arrival does not matter, so that replicas come to the same end."""
    async with bench() as b:
        await b.submit(*(make("x", title=title) for title in order))
        assert b.catalogue.items["c", "x"].body["title"] == "q"


async def test_an_older_item_is_superseded_by_the_catalogue_s() -> None:
    """What the catalogue has newer already is done, and counted."""
    async with bench() as b:
        await b.submit(make("x", 2))
        assert await b.submit(make("x", 1)) == [None]
        assert b.versions() == {"x": 2}
        assert b.counts() == {"loaded": 1, "superseded": 1, "rejected": 0, "buffered": 0}


async def test_a_refused_newest_version_does_not_cost_the_older_good_one() -> None:
    """When the database refuses the newest of an id, the next newest is loaded instead."""
    async with bench() as b:
        verdicts = await b.submit(make("x", 1), make("x", 2), make("x", 3, bad=True), make("x", 4, bad=True))
        refusal = ("refused", "c", "x", "invalid input: x (message body)")
        assert told(verdicts) == [None, None, refusal, refusal]
        assert b.versions() == {"x": 2}
        assert b.counts() == {"loaded": 1, "superseded": 1, "rejected": 2, "buffered": 0}


async def test_a_bad_item_is_told_to_its_message_alone() -> None:
    """Of eight messages in a batch one hears the database's reason; the others are in."""
    async with bench(max_batch_items=8) as b:
        tasks = [b.start(make(str(number), bad=number == 5), in_flight=b.more) for number in range(8)]
        results = [told(verdicts) for verdicts in await asyncio.gather(*tasks)]
        expected: list[Any] = [[None]] * 8
        expected[5] = [("refused", "c", "5", "invalid input: 5 (message body)")]
        assert results == expected
        assert sorted(b.versions()) == ["0", "1", "2", "3", "4", "6", "7"]
        assert b.count("items_rejected_total", error_class="refused") == 1
        assert b.count("batch_bisections_total") == 3


async def test_items_of_a_missing_collection_are_refused_each() -> None:
    """Each item's refusal names the item."""
    async with bench() as b:
        verdicts = await b.submit(make("x", collection="none"), make("y", collection="none"))
        reason = "collection 'none' does not exist (message body)"
        assert told(verdicts) == [
            ("collection_missing", "none", "x", reason),
            ("collection_missing", "none", "y", reason),
        ]
        assert len(b.batches()) == 1


async def test_an_existing_item_is_refused_where_the_setting_says_so() -> None:
    """With conflict: error the item in the catalogue stays and the new one is told what to do."""
    async with bench(conflict="error") as b:
        await b.submit(make("x", 1))
        assert told(await b.submit(make("x", 2))) == [
            (
                "conflict",
                "c",
                "x",
                (
                    "item 'x' exists already in collection 'c', which is set to conflict: error; "
                    "set upsert to replace it or ignore to keep it (message body)"
                ),
            )
        ]
        assert b.versions() == {"x": 1}


@pytest.mark.parametrize("failure", [Transient("deadlock"), Unavailable("gone", dependency="database")])
async def test_a_failed_batch_is_told_to_all_its_messages(failure: Transient | Unavailable) -> None:
    """Every message of the batch comes again; the next batch is tried on its own."""
    async with bench(max_batch_items=2) as b:
        b.catalogue.fail_next(failure)
        tasks = [b.start(make(item_id), in_flight=b.more) for item_id in "xy"]
        tasks.append(b.start(make("z")))
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results == [failure, failure, [None]]
        assert b.counts() == {"loaded": 1, "superseded": 0, "rejected": 0, "buffered": 0}


async def test_a_failed_message_takes_back_what_still_waits() -> None:
    """Once a part has failed, the message has to come again: its other items are not loaded for nothing."""
    async with bench(max_batch_items=1) as b:
        failure = Transient("deadlock")
        b.catalogue.fail_next(failure)
        with pytest.raises(Transient) as raised:
            await b.submit(make("x"), make("y"), make("z"))
        assert raised.value is failure
        assert (b.batches(), b.versions(), b.counts()["buffered"]) == ([("x",), ("y",)], {"y": 1}, 0)


async def test_a_failed_message_waits_for_its_batches_in_the_database() -> None:
    """A message ends only when nothing is being done for it any more."""
    async with bench() as b:
        b.catalogue.pause("a", "b")
        task = b.start(make("x", collection="a"), make("y", collection="b"))
        await b.catalogue.reached(2)
        b.catalogue.fail_next(Transient("deadlock"))
        await b.catalogue.resume()
        with pytest.raises(Transient):
            await task
        assert b.catalogue.running == 0
        assert b.versions() == {"y": 1}


async def test_what_was_committed_before_a_failure_stays() -> None:
    """A failure in the middle of a search for bad items is told to the messages that it concerns."""
    async with bench(max_batch_items=4) as b:
        failure = Transient("deadlock")
        b.catalogue.fail_next(None, None, failure)
        tasks = [b.start(make(item_id, bad=item_id == "z"), in_flight=b.more) for item_id in "wxyz"]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results == [[None], [None], failure, failure]
        assert sorted(b.versions()) == ["w", "x"]


async def test_a_busy_collection_is_tried_until_it_is_free() -> None:
    """Waiting for other writers is no failure and holds up no other collection."""
    async with bench() as b:
        b.catalogue.fail_next(*[Busy("locked")] * 3)
        task = b.start(make("x", collection="a"))
        await b.catalogue.reached(1)
        assert await task == [None]
        assert await b.submit(make("y", collection="b")) == [None]
        assert b.batches() == [("x",)] * 4 + [("y",)]


async def test_a_busy_collection_is_given_up_when_nobody_waits() -> None:
    """When all who submitted have left, the batch is not tried again."""
    async with bench() as b:
        b.catalogue.pause("c")
        task = b.start(make("x"))
        await b.catalogue.reached(1)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        b.catalogue.fail_next(Busy("locked"))
        await b.catalogue.resume()
        await settled(10)
        assert (b.batches(), b.versions()) == ([("x",)], {})


async def test_a_cancelled_message_takes_back_what_waits() -> None:
    """Items that no batch has taken go with their message; the batch in the database goes on."""
    async with bench(max_batch_items=1) as b:
        b.catalogue.pause("c")
        leaving = b.start(make("w"), make("x"), make("y"), in_flight=b.more)
        staying = b.start(make("z"), in_flight=b.more)
        await b.catalogue.reached(2)
        assert b.counts()["buffered"] == 2
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert b.counts()["buffered"] == 1
        await b.catalogue.resume()
        assert await staying == [None]
        assert sorted(b.versions()) == ["w", "x", "z"]


async def test_leaving_the_batcher_stops_loads_and_tells_who_waits() -> None:
    """At the end nobody is left waiting: what is not durable has to come again."""
    async with bench(max_batch_items=1) as b:
        b.catalogue.pause("c")
        tasks = [b.start(make(item_id), in_flight=b.more) for item_id in "xy"]
        await b.catalogue.reached(1)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [(type(error), str(error)) for error in results] == [
        (Transient, "stacworker stopped before this was done")
    ] * 2
    assert (b.versions(), b.counts()["buffered"], b.catalogue.running) == ({}, 0, 0)
    with pytest.raises(Transient):
        await b.submit(make("z"))


async def test_a_load_stopped_before_it_began_is_told_too() -> None:
    """A message whose batch was taken but not started when the batcher ended is not left waiting."""
    async with bench(max_batch_items=1) as b:
        task = b.start(make("x"))
        await settled(1)
        assert b.counts()["buffered"] == 0
    async with asyncio.timeout(5):
        with pytest.raises(Transient, match="stopped"):
            await task
    assert b.batches() == []


async def test_an_error_in_the_body_leaves_the_batcher_unchanged() -> None:
    """Whoever runs the batcher sees its own errors, not groups of them."""
    with pytest.raises(Permanent, match="mine"):
        async with bench():
            raise Permanent("mine")


async def test_a_defect_of_the_batcher_ends_the_process_s_work() -> None:
    """Crash-only: who entered is cancelled and sees the defect, and no message waits for ever."""
    tasks = []

    async def work() -> None:
        async with bench() as b:
            b.metrics.items_loaded = None  # type: ignore[assignment] - the defect
            tasks.append(b.start(make("x")))
            tasks.append(b.start(make("y", collection="b"), in_flight=b.more))
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as raised:
        await work()
    assert [type(error) for error in raised.value.exceptions] == [AttributeError]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results[0] == [None]
    assert isinstance(results[1], Transient)


async def test_settings_that_cannot_be_had_leave_nothing_behind() -> None:
    """When a lane cannot be made, the items that were added already are taken back."""
    async with bench() as b:
        real = b.settings_for

        def settings_for(collection: str) -> Any:
            if collection == "b":
                raise RuntimeError("no settings")
            return real(collection)

        b.batcher._settings_for = settings_for
        with pytest.raises(RuntimeError):
            await b.submit(make("x", collection="a"), make("y", collection="b"), in_flight=b.more)
        assert b.counts("a")["buffered"] == 0


async def test_loads_do_not_run_in_the_log_context_of_a_message() -> None:
    """A batch serves many messages: its log lines name none of them."""
    seen: list[dict[str, Any]] = []

    class Catalogue(FakeCatalogue):
        async def load(self, *args: Any, **kwargs: Any) -> Any:
            seen.append(structlog.contextvars.get_contextvars())
            return await super().load(*args, **kwargs)

    async with bench(Catalogue("c")) as b:
        with structlog.contextvars.bound_contextvars(message_id="m1"):
            await b.submit(make("x"))
    assert seen == [{}]


async def test_a_large_submission_is_fed_batch_by_batch() -> None:
    """An object with very many items is loaded in full batches, each item once."""
    async with bench(max_batch_items=500) as b:
        verdicts = await b.submit(*(make(str(number)) for number in range(20_250)))
        assert verdicts == [None] * 20_250
        assert [len(ids) for ids in b.batches()] == [500] * 40 + [250]
        assert b.counts() == {"loaded": 20_250, "superseded": 0, "rejected": 0, "buffered": 0}


_item = st.builds(
    make,
    st.sampled_from("xyz"),
    st.integers(1, 3),
    collection=st.sampled_from("ab"),
    bad=st.booleans(),
    title=st.sampled_from("pq"),
)
_failure = st.sampled_from(
    [None, None, Busy("locked"), Transient("deadlock"), Unavailable("gone", dependency="database")]
)


def _age(item: Prepared) -> tuple[int, str]:
    return item.version.time_ms, item.body["title"]


async def _carry(b: Bench, items: list[Prepared]) -> None:
    """Do as the engine does with a message: submit again what failed; check the verdicts."""
    while True:
        try:
            verdicts = await b.submit(*items)
        except (Transient, Unavailable):
            await asyncio.sleep(0)
            continue
        for item, verdict in zip(items, verdicts, strict=True):
            # A bad item that a newer good one superseded is done with it.
            held = b.catalogue.items.get((item.collection, item.id))
            superseded = held is not None and _age(held) > _age(item)
            assert item.body["bad"] >= (verdict is not None)
            assert item.body["bad"] <= (verdict is not None or superseded)
        return


def _newest(items: Iterable[Prepared]) -> dict[tuple[str, str], tuple[int, str]]:
    newest: dict[tuple[str, str], tuple[int, str]] = {}
    for item in items:
        if not item.body["bad"]:
            key = item.collection, item.id
            newest[key] = max(newest.get(key, (0, "")), _age(item))
    return newest


@settings(max_examples=150)
@given(
    messages=st.lists(st.lists(_item, max_size=5), max_size=12),
    failures=st.lists(_failure, max_size=6),
    batch_items=st.integers(1, 6),
    slots=st.integers(1, 2),
)
def test_whatever_comes_every_message_hears_the_truth(
    messages: list[list[Prepared]], failures: list[Exception | None], batch_items: int, slots: int
) -> None:
    """Each bad item is told to its message, the newest good versions are in, and the counts add up."""

    async def scenario() -> None:
        catalogue = FakeCatalogue("ab", refuses=bad)
        catalogue.fail_next(*failures)
        async with bench(catalogue, max_batch_items=batch_items, max_concurrency=slots) as b:
            await asyncio.gather(*(_carry(b, items) for items in messages))
            items = [item for of_message in messages for item in of_message]
            assert {key: _age(item) for key, item in catalogue.items.items()} == _newest(items)
            totals = [b.counts(collection)[name] for collection in "ab" for name in b.counts()]
            if not any(failures):
                assert sum(totals) == len(items)
            assert (b.in_flight.held, b.in_flight.stalled) == (0, False)

    asyncio.run(scenario())


@settings(max_examples=100)
@given(
    messages=st.lists(st.lists(_item, max_size=5), min_size=1, max_size=12),
    failures=st.lists(_failure, max_size=6),
    leaving=st.sets(st.integers(0, 11), min_size=1),
    steps=st.integers(0, 12),
)
def test_messages_that_leave_cost_the_others_nothing(
    messages: list[list[Prepared]], failures: list[Exception | None], leaving: set[int], steps: int
) -> None:
    """Whenever some messages are cancelled, the others hear the truth and nothing stays behind."""

    async def scenario() -> None:
        catalogue = FakeCatalogue("ab", refuses=bad)
        catalogue.fail_next(*failures)
        async with bench(catalogue, max_batch_items=3) as b:
            tasks = [asyncio.ensure_future(_carry(b, items)) for items in messages]
            await settled(steps)
            for number in leaving & set(range(len(tasks))):
                tasks[number].cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            stayed = [number for number, result in enumerate(results) if result is None]
            assert leaving.issuperset(set(range(len(tasks))) - set(stayed))
            held = {key: _age(item) for key, item in catalogue.items.items()}
            for key, newest in _newest(item for number in stayed for item in messages[number]).items():
                assert held[key] >= newest
            # Whoever left may have left a load behind, which ends on its own.
            while b.batcher._lanes:
                await asyncio.sleep(0)
            assert (b.counts("a")["buffered"], b.counts("b")["buffered"]) == (0, 0)
            assert (catalogue.running, b.in_flight.held) == (0, 0)

    asyncio.run(scenario())
