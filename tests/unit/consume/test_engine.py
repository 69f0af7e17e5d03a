"""The life of a message in the engine, on a queue in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import pytest

from stacworker.api import Message
from stacworker.consume.settle import Settler
from stacworker.consume.sqs import Failure
from stacworker.errors import Permanent, Refusal, Rejected, Transient, Unavailable
from stacworker.http.status import Status
from stacworker.testing.queue import FakeQueue
from tests.unit.consume.harness import eventually, running


async def test_acknowledges_what_the_consumer_finished() -> None:
    """A message is deleted once handle has returned, and counted as acked."""
    async with running(bodies=tuple("abc")) as bench:
        await eventually(lambda: not bench.queue.stored)
    assert sorted(bench.consumer.handled) == ["a", "b", "c"]
    assert sorted(bench.queue.deleted) == ["m1", "m2", "m3"]
    assert bench.outcomes() == {"acked": 3}
    assert bench.count("messages_received_total") == 3


async def test_never_deletes_before_the_work_is_done() -> None:
    """While handle runs the message stays in the queue."""
    go = asyncio.Event()

    async def work(_: Message) -> None:
        await go.wait()

    async with running(work, bodies=("a",)) as bench:
        await eventually(lambda: bench.consumer.handled)
        assert bench.queue.deleted == []
        assert bench.count("in_flight_messages") == 1
        go.set()
        await eventually(lambda: bench.queue.deleted)


async def test_dead_letters_with_the_reason() -> None:
    """A permanent failure moves the body, unchanged, with its reason in attributes."""

    async def work(_: Message) -> None:
        raise Permanent("geometry is null", error_class="invalid_item", collection="naip", item_id="x")

    async with running(work, bodies=("bad",)) as bench:
        await eventually(lambda: bench.queue.deleted)
    (letter,) = bench.dead.stored.values()
    assert letter.body == "bad"
    sent_at = datetime.fromisoformat(letter.attributes["stacworker_sent_at"]["StringValue"])
    assert abs(datetime.now(UTC) - sent_at) < timedelta(minutes=5)
    assert {name: value["StringValue"] for name, value in letter.attributes.items()} == {
        "stacworker_error_class": "invalid_item",
        "stacworker_reason": "geometry is null",
        "stacworker_consumer": "items",
        "stacworker_collection": "naip",
        "stacworker_item_id": "x",
        "stacworker_failed_at": "1970-01-01T00:00:00.000+00:00",
        "stacworker_source_queue": bench.queue.url,
        "stacworker_sent_at": sent_at.isoformat(timespec="milliseconds"),
    }
    assert bench.outcomes() == {"dead_lettered": 1}


async def test_dead_letters_only_the_bad_parts() -> None:
    """A message of which some documents were refused leaves one dead letter for each of those."""

    async def work(_: Message) -> None:
        raise Rejected((Refusal(Permanent("one"), '{"id":"1"}'), Refusal(Permanent("two"), '{"id":"2"}')))

    async with running(work, bodies=("many",)) as bench:
        await eventually(lambda: bench.queue.deleted)
    assert [letter.body for letter in bench.dead.stored.values()] == ['{"id":"1"}', '{"id":"2"}']
    assert bench.outcomes() == {"dead_lettered": 1}


async def test_retries_what_may_pass() -> None:
    """A transient failure makes the message visible again after a backoff; the next try succeeds."""

    async def work(message: Message) -> None:
        if message.receive_count == 1:
            raise Transient("deadlock")

    async with running(work, bodies=("a",)) as bench:
        await eventually(lambda: bench.queue.deleted)
    assert bench.consumer.handled == ["a", "a"]
    assert bench.outcomes() == {"acked": 1, "retried": 1}


async def test_gives_up_at_the_receive_limit() -> None:
    """The last try that fails in passing is dead-lettered with what went wrong."""

    async def work(_: Message) -> None:
        raise Transient("object is locked", error_class="locked")

    async with running(work, bodies=("a",), max_receive_count=3) as bench:
        await eventually(lambda: bench.queue.deleted)
    (letter,) = bench.dead.stored.values()
    assert letter.attributes["stacworker_reason"]["StringValue"] == "gave up after 3 receives: object is locked"
    assert letter.attributes["stacworker_error_class"]["StringValue"] == "locked"
    assert bench.outcomes() == {"retried": 2, "dead_lettered": 1}


async def test_an_unforeseen_error_is_retried() -> None:
    """Whatever a consumer raises is an outcome of its message and harms nothing else."""

    async def work(message: Message) -> None:
        if message.body == "odd" and message.receive_count == 1:
            raise ZeroDivisionError

    async with running(work, bodies=("odd", "even")) as bench:
        await eventually(lambda: len(bench.queue.deleted) == 2)
    assert bench.outcomes() == {"acked": 2, "retried": 1}


class Panic(BaseException):
    """As extension modules raise."""


class Unprintable(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SystemExit(0), "SystemExit: 0"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (asyncio.CancelledError(), "asyncio.exceptions.CancelledError"),
        (Panic("index"), "Panic: index"),
        (Unprintable(), "<exception str() failed>"),
        (Permanent(ValueError("no id")), "no id"),  # type: ignore[arg-type]
        (Permanent("bad", item_id=7), "bad"),  # type: ignore[arg-type]
    ],
    ids=repr,
)
async def test_nothing_that_a_consumer_raises_harms_more_than_its_message(error: BaseException, reason: str) -> None:
    """Not even what would end a process, or a cancellation that is not ours."""

    async def work(message: Message) -> None:
        if message.body == "odd":
            raise error

    async with running(work, bodies=("odd", "even"), max_receive_count=2) as bench:
        await eventually(lambda: not bench.queue.stored)
    (letter,) = bench.dead.stored.values()
    assert letter.attributes["stacworker_reason"]["StringValue"].endswith(reason)
    assert bench.outcomes()["acked"] == bench.outcomes()["dead_lettered"] == 1


async def test_without_a_dead_letter_queue_nothing_is_deleted() -> None:
    """A bad message with nowhere to go stays in its queue."""

    async def work(_: Message) -> None:
        raise Permanent("bad")

    async with running(work, bodies=("a",), dead_letters=False) as bench:
        await eventually(lambda: bench.outcomes() == {"retried": 1})
    assert bench.queue.deleted == []
    assert bench.queue.stored["m1"].body == "a"


async def test_a_dead_letter_that_cannot_be_sent_keeps_its_message() -> None:
    """When the dead-letter queue refuses, the message is retried and not deleted."""

    async def work(_: Message) -> None:
        raise Permanent("bad")

    async with running(work) as bench:
        bench.dead.faults = lambda operation: Permanent("no such queue") if operation == "send" else None
        bench.queue.put("a")
        await eventually(lambda: bench.outcomes().get("retried"))
        assert bench.queue.deleted == []
        bench.dead.faults = lambda _: None
        await eventually(lambda: bench.queue.deleted)
    assert [letter.body for letter in bench.dead.stored.values()] == ["a"]


@pytest.fixture
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an open circuit probe every few milliseconds."""
    monkeypatch.setattr("stacworker.consume.circuit._FIRST_PAUSE_S", 0.004)
    monkeypatch.setattr("stacworker.consume.circuit._LAST_PAUSE_S", 0.004)


@pytest.mark.usefixtures("_short_pauses")
@pytest.mark.parametrize("ping_fails", [True, False])
async def test_an_outage_pauses_polling_and_burns_one_receive(ping_fails: bool) -> None:  # noqa: FBT001
    """While work fails one message stays in hand as a trial, the others are released, and nothing is received."""
    away = Unavailable("no space left", dependency="database", error_class="no_resources")
    is_away = False

    async def work(_: Message) -> None:
        if is_away:
            raise away

    async with running(work) as bench:
        await eventually(lambda: bench.queue.calls.count("describe"))  # the first probe has passed
        is_away = True
        bench.consumer.away = away if ping_fails else None
        bench.queue.put("a", "b")
        await eventually(lambda: bench.outcomes() == {"released": 1})
        assert bench.engine.paused_because == "waiting for database: no space left"
        assert bench.metrics.registry.get_sample_value("stacworker_circuit_open", {"dependency": "database"}) == 1
        await eventually(lambda: not bench.engine._receives)
        assert bench.count("in_flight_messages") == 1
        for stored in bench.queue.stored.values():
            stored.visible_at = 0  # as if its delay were over
        calls, tries = bench.queue.calls.count("receive"), len(bench.consumer.handled)
        probes = bench.queue.calls.count("describe")
        await eventually(lambda: bench.queue.calls.count("describe") >= probes + 12)
        assert bench.queue.calls.count("receive") == calls
        assert (len(bench.consumer.handled) == tries) is ping_fails
        assert {stored.receives for stored in bench.queue.stored.values()} == {1}
        is_away, bench.consumer.away = False, None
        await eventually(lambda: bench.outcomes() == {"acked": 2, "released": 1})
        assert sorted(bench.queue.deleted) == ["m1", "m2"]
    assert bench.metrics.registry.get_sample_value("stacworker_circuit_open", {"dependency": "database"}) == 0


@pytest.mark.usefixtures("_short_pauses")
async def test_a_message_that_alone_meets_an_outage_does_not_stop_the_others_for_ever() -> None:
    """What a single message may bring about is tried a few times, then the others go on."""

    async def work(message: Message) -> None:
        if message.body == "crashes the database":
            raise Unavailable("connection lost", dependency="database", error_class="connection")

    async with running(work, bodies=("crashes the database",)) as bench:
        await eventually(lambda: bench.outcomes() == {"released": 1})
        assert len(bench.consumer.handled) == 6
        bench.queue.put("good")
        await eventually(lambda: bench.queue.deleted == ["m2"])


async def test_a_drain_releases_the_message_on_trial() -> None:
    """It does not wait for the outage to end."""

    async def work(_: Message) -> None:
        raise Unavailable("read-only", dependency="database", error_class="read_only")

    async with running(work, bodies=("a",), drain_timeout_s=60) as bench:
        await eventually(lambda: bench.engine.circuit.is_open and not bench.engine._receives)
        await bench.drain()
    assert bench.outcomes() == {"released": 1}
    assert (await bench.queue.depth())["visible"] == 1


async def test_a_receive_that_fails_pauses_polling() -> None:
    """SQS away opens the circuit; the queue is polled again when it answers."""
    async with running() as bench:
        bench.queue.faults = lambda _: Unavailable("503", dependency="sqs")
        await eventually(lambda: bench.engine.circuit.is_open)
        bench.queue.faults = lambda _: None
        bench.queue.put("a")
        await eventually(lambda: bench.queue.deleted)


async def test_a_duplicate_in_hand_is_not_worked_on_twice() -> None:
    """A message delivered again while in hand only renews its receipt handle, with which it is deleted."""
    go = asyncio.Event()

    async def work(_: Message) -> None:
        await go.wait()

    async with running(work, bodies=("a",)) as bench:
        await eventually(lambda: bench.consumer.handled)
        bench.queue.stored["m1"].visible_at = 0
        await eventually(lambda: bench.count("duplicate_deliveries_total") == 1)
        go.set()
        await eventually(lambda: bench.queue.deleted)
    assert bench.consumer.handled == ["a"]
    assert bench.outcomes() == {"acked": 1}
    assert bench.count("messages_received_total") == 1


async def test_a_duplicate_in_the_same_receive_is_not_worked_on_twice() -> None:
    """One receive may bring a message twice; its room is given back twice."""

    class Stutter(FakeQueue):
        async def receive(self, *args: object, **kwargs: object) -> list[Message]:
            return 2 * await super().receive(*args, **kwargs)  # type: ignore[arg-type]

    async with running(queue=Stutter(), bodies=tuple("abc"), max_in_flight=30) as bench:
        await eventually(lambda: not bench.queue.stored)
    assert sorted(bench.consumer.handled) == ["a", "b", "c"]
    assert bench.outcomes() == {"acked": 3}
    assert bench.count("duplicate_deliveries_total") == 3
    assert bench.count("in_flight_bytes") == bench.engine.in_flight.held == 0


async def test_leases_are_extended_while_work_lasts() -> None:
    """A message that takes longer than its visibility timeout is delivered once."""
    go = asyncio.Event()

    async def work(_: Message) -> None:
        await go.wait()

    async with running(work, bodies=("a",), visibility_timeout_s=0.2) as bench:
        await eventually(lambda: bench.count("visibility_extensions_total", outcome="ok") >= 3)
        go.set()
        await eventually(lambda: bench.queue.deleted)
    assert bench.consumer.handled == ["a"]
    assert bench.count("duplicate_deliveries_total") == 0


async def test_never_holds_more_than_its_slots() -> None:
    """With a limit of 3 no more than 3 messages are out of the queue."""
    most = 0

    async def work(_: Message) -> None:
        nonlocal most
        most = max(most, bench.engine.in_flight.held)
        assert sum(s.visible_at > asyncio.get_running_loop().time() for s in bench.queue.stored.values()) <= 3
        await asyncio.sleep(0)

    async with running(work, bodies=tuple(map(str, range(40))), max_in_flight=3) as bench:
        await eventually(lambda: len(bench.queue.deleted) == 40)
    assert most <= 3
    assert bench.outcomes() == {"acked": 40}


async def test_attributes_count_as_bytes() -> None:
    """What is large beside a small body takes as much room."""
    go = asyncio.Event()

    async def work(_: Message) -> None:
        await go.wait()

    large = {"a": {"DataType": "Binary", "BinaryValue": b"x" * 900_000}}
    async with running(work, max_in_flight_bytes=3_000_000) as bench:
        for id_ in bench.queue.put(*["x"] * 12):
            bench.queue.stored[id_].attributes = large
        await eventually(lambda: bench.count("in_flight_bytes") > 1_800_000 and not bench.engine._receives)
        assert len(bench.consumer.handled) <= 3
        go.set()
        await eventually(lambda: not bench.queue.stored)


async def test_batches_go_when_all_slots_wait() -> None:
    """Messages that all wait for a batch flush it although more are in the queue."""
    flushed = asyncio.Event()

    async def work(message: Message) -> None:
        with message.in_flight.waiting(flushed.set):
            await flushed.wait()

    async with running(work, bodies=tuple(map(str, range(20))), max_in_flight=4) as bench:
        await eventually(lambda: len(bench.queue.deleted) == 20)
    assert bench.outcomes() == {"acked": 20}


async def test_one_poller_stays_when_all_are_idle_at_once() -> None:
    """Pollers that come back empty in the same moment do not all go."""
    empty = asyncio.Event()

    class Gate(FakeQueue):
        async def receive(self, max_messages: int, **kwargs: object) -> list[Message]:
            if self.stored and not empty.is_set():
                return await super().receive(max_messages, **kwargs)  # type: ignore[arg-type]
            if not empty.is_set():
                await empty.wait()
                return []
            return await super().receive(max_messages, **kwargs)  # type: ignore[arg-type]

    queue = Gate()
    async with running(queue=queue, bodies=tuple(map(str, range(40)))) as bench:
        await eventually(lambda: not queue.stored and bench.engine._receives > 2)
        empty.set()
        await eventually(lambda: bench.engine._receives == 1)
        queue.put("late")
        await eventually(lambda: not queue.stored)


async def test_batches_go_when_a_receive_stays_empty() -> None:
    """Of a FIFO group one message goes after the other; none waits for the long poll of a queue that gives no more."""

    async def work(message: Message) -> None:
        flushed = asyncio.Event()
        with message.in_flight.waiting(flushed.set):
            await flushed.wait()

    queue = FakeQueue(fifo=True)
    queue.put(*map(str, range(10)), group_id="g")
    async with running(work, queue=queue, fifo=True, wait_time_s=20, drain_timeout_s=0.1) as bench:
        await eventually(lambda: len(bench.queue.deleted) == 10)


async def test_drain_finishes_what_is_in_hand() -> None:
    """After SIGTERM the message in hand is finished and deleted, and nothing new is received."""
    go = asyncio.Event()

    async def work(_: Message) -> None:
        await go.wait()

    async with running(work, bodies=("a",), max_in_flight=1) as bench:
        await eventually(lambda: bench.consumer.handled)
        bench.queue.put("late")
        bench.lifecycle.stop("test")
        go.set()
        await bench.drain()
    assert bench.queue.deleted == ["m1"]
    assert bench.outcomes() == {"acked": 1}
    assert bench.queue.stored["m2"].receives == 0


async def test_drain_past_its_deadline_gives_messages_back() -> None:
    """What is not done at the deadline is visible again at once."""

    async def work(_: Message) -> None:
        await asyncio.Event().wait()

    async with running(work, bodies=("a", "b"), drain_timeout_s=0.05) as bench:
        await eventually(lambda: len(bench.consumer.handled) == 2)
        await bench.drain()
    assert bench.outcomes() == {"released": 2}
    assert (await bench.queue.depth())["visible"] == 2


async def test_a_consumer_that_breaks_when_it_is_cancelled_is_retried() -> None:
    """A clean-up that fails at the deadline does not end the engine."""

    async def work(_: Message) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("cannot roll back")

    async with running(work, bodies=("a",), drain_timeout_s=0.05) as bench:
        await eventually(lambda: bench.consumer.handled)
        await bench.drain()
    assert bench.outcomes() == {"retried": 1}
    assert (await bench.queue.depth())["visible"] == 1


async def test_a_drain_that_ends_while_a_letter_is_sent_releases_the_message() -> None:
    """It is counted as what became of it: given back, not dead-lettered."""
    sending = asyncio.Event()

    class Hanging(FakeQueue):
        async def send(self, *_: object) -> dict[int, Failure]:
            sending.set()
            await asyncio.Event().wait()
            return {}

    async def work(_: Message) -> None:
        raise Permanent("bad")

    async with running(work, dead=Hanging("dead"), bodies=("a",), drain_timeout_s=0.05) as bench:
        await sending.wait()
        await bench.drain()
    assert bench.outcomes() == {"released": 1}
    assert (await bench.queue.depth())["visible"] == 1


async def test_a_drain_that_ends_while_a_message_is_deleted_deletes_it() -> None:
    """The work is durable: the message is acked, and not given back."""
    deleting = asyncio.Event()

    class Slow(FakeQueue):
        async def delete(self, handles: Mapping[str, str]) -> dict[str, Failure]:
            deleting.set()
            while not bench.count("messages_total", outcome="acked"):
                await asyncio.sleep(0.002)
            return await super().delete(handles)

    async with running(queue=Slow(), bodies=("a",), drain_timeout_s=0.05) as bench:
        await deleting.wait()
        await bench.drain()
    assert bench.outcomes() == {"acked": 1}
    assert bench.queue.deleted == ["m1"]


async def test_an_engine_that_has_drained_is_not_dead() -> None:
    """While its neighbours still drain, nobody expects signs of life from it."""
    async with running() as bench:
        await bench.drain()
    assert Status(bench.lifecycle, monotonic=lambda: 1e12, parts=[bench.engine]).dead() == []


async def test_drain_lets_a_receive_return_and_gives_its_messages_back() -> None:
    """A receive in flight is not cancelled; what it brings after the drain began is released."""
    release = asyncio.Event()

    class SlowQueue(FakeQueue):
        async def receive(self, *args: object, **kwargs: object) -> list[Message]:
            messages = await super().receive(*args, **kwargs)  # type: ignore[arg-type]
            await release.wait()
            return messages

    queue = SlowQueue()
    async with running(queue=queue, bodies=("a",)) as bench:
        await eventually(lambda: queue.stored["m1"].receives == 1)
        bench.lifecycle.stop("test")
        await asyncio.sleep(0)
        release.set()
        await bench.drain()
    assert bench.consumer.handled == []
    assert bench.outcomes() == {"released": 1}
    assert (await queue.depth())["visible"] == 1


async def test_a_receive_that_returns_as_the_drain_begins_is_given_back() -> None:
    """Its messages do not wait for their leases to run out, however close the two moments are."""
    loop = asyncio.get_running_loop()

    class Waiting(FakeQueue):
        async def receive(self, *args: object, **kwargs: object) -> list[Message]:
            messages = await super().receive(*args, **kwargs)  # type: ignore[arg-type]
            answer: asyncio.Future[list[Message]] = loop.create_future()
            answers.append(lambda: answer.set_result(messages))
            return await answer

    answers: list[Callable[[], None]] = []
    queue = Waiting()
    async with running(queue=queue, bodies=tuple("abc")) as bench:
        await eventually(lambda: answers)
        # The signal's callback and the answer in one turn of the loop: the poller runs first, then the drain.
        answers[0]()
        bench.lifecycle.stop("test")
        await bench.drain()
    assert bench.consumer.handled == []
    assert bench.outcomes() == {"released": 3}
    assert (await queue.depth())["visible"] == 3


async def test_fifo_groups_keep_their_order() -> None:
    """Messages of one group are worked on one after the other; groups do not wait for each other."""
    hold = asyncio.Event()

    async def work(message: Message) -> None:
        if message.body == "a1":
            await hold.wait()

    queue = FakeQueue(fifo=True)
    queue.put("a1", "a2", "a3", group_id="a")
    queue.put("b1", "b2", group_id="b")
    async with running(work, queue=queue, fifo=True) as bench:
        await eventually(lambda: bench.consumer.handled == ["a1", "b1", "b2"])
        hold.set()
        await eventually(lambda: not queue.stored)
    assert [body for body in bench.consumer.handled if body.startswith("a")] == ["a1", "a2", "a3"]


async def test_a_fifo_failure_holds_back_the_rest_of_its_group() -> None:
    """Later messages of the group are not worked on before the failed one has been tried again."""

    async def work(message: Message) -> None:
        if message.body == "a1" and message.receive_count == 1:
            raise Transient("later")

    queue = FakeQueue(fifo=True)
    queue.put("a1", "a2", group_id="a")
    async with running(work, queue=queue, fifo=True) as bench:
        await eventually(lambda: not queue.stored)
    assert bench.consumer.handled == ["a1", "a1", "a2"]


async def test_a_defect_of_the_engine_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the engine's own code breaks, run raises instead of going on half alive."""

    async def broken(self: Settler, *_: object) -> None:
        raise AssertionError("defect")

    async with running() as bench:
        monkeypatch.setattr(Settler, "settle", broken)
        bench.queue.put("a")
        assert bench.task is not None
        with pytest.raises(ExceptionGroup):
            await bench.task


async def test_every_message_has_one_outcome() -> None:
    """Received = acked + retried + dead-lettered + released, whatever happens."""

    async def work(message: Message) -> None:
        kind = int(message.body) % 4
        if kind == 1 and message.receive_count == 1:
            raise Transient("t")
        if kind == 2:
            raise Permanent("p")
        if kind == 3 and message.receive_count == 1:
            raise ValueError("v")

    async with running(work, bodies=tuple(map(str, range(100)))) as bench:
        await eventually(lambda: not bench.queue.stored)
    assert bench.outcomes() == {"acked": 75, "retried": 50, "dead_lettered": 25}
    assert bench.count("messages_received_total") == 150
    assert bench.count("in_flight_messages") == 0
    assert bench.count("in_flight_bytes") == 0
