"""The parts around the engine: outcomes, slots, leases, acks, circuit, dead letters, groups."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stacworker.api import Message
from stacworker.consume.acks import Acks
from stacworker.consume.circuit import Circuit
from stacworker.consume.deadletter import DeadLetters
from stacworker.consume.groups import Groups
from stacworker.consume.lease import MAX_HOLD_S, LeaseKeeper
from stacworker.consume.outcome import Outcome, backoff_s, decide
from stacworker.consume.slots import Slots
from stacworker.consume.sqs import MAX_BODY_BYTES, Failure, Letter, SqsQueue
from stacworker.errors import Permanent, Refusal, Rejected, StacworkerError, Transient, Unavailable
from stacworker.inflight import InFlight
from stacworker.metrics import Metrics
from stacworker.testing.queue import FakeQueue
from tests.unit.consume.harness import eventually

AWAY = Unavailable("gone", dependency="database")


def message(id_: str = "m1", body: str = "{}", **more: object) -> Message:
    return Message(id=id_, body=body, receipt_handle=f"{id_}#1", receive_count=1, sent_at=0.0, **more)  # type: ignore[arg-type]


# -- outcomes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "receives", "outcome"),
    [
        (None, 9, Outcome.ACKED),
        (Permanent("p"), 1, Outcome.DEAD_LETTERED),
        (Transient("t"), 4, Outcome.RETRIED),
        (Transient("t"), 5, Outcome.DEAD_LETTERED),
        (AWAY, 5, Outcome.RELEASED),
        (StacworkerError("other"), 1, Outcome.RETRIED),
    ],
)
def test_the_error_decides_the_outcome(error: StacworkerError | None, receives: int, outcome: Outcome) -> None:
    """Each kind of error has one outcome; the last try of a transient one is dead-lettered."""
    assert decide(error, receive_count=receives, max_receive_count=5) is outcome


@given(st.integers(1, 100_000), st.floats(0, 3600), st.floats(0, 43_200), st.floats(0, 1))
def test_backoff_stays_within_its_bounds(receives: int, base_s: float, max_s: float, chance: float) -> None:
    """Full jitter: anything between 0 and the capped exponential."""
    found = backoff_s(receives, base_s=base_s, max_s=max_s, random=lambda: chance)
    assert 0 <= found <= min(max_s, base_s * 2.0 ** min(receives - 1, 1000) if base_s else 0) + 1e-9


# -- slots -------------------------------------------------------------------------------------------


async def test_slots_reserve_the_largest_message_before_a_receive() -> None:
    """Room for bytes is taken before it is known what comes, and corrected afterwards."""
    slots = Slots(max_messages=100, max_bytes=3 * MAX_BODY_BYTES)
    assert await slots.take() == 3
    assert slots.free == 0
    slots.settle(3, [10, 20])
    assert slots.free == 2
    slots.give_back(10)
    slots.give_back(20)
    assert slots.free == 3


async def test_a_byte_limit_below_one_message_still_lets_one_through() -> None:
    """A small limit slows down to one message at a time and never stops."""
    slots = Slots(max_messages=100, max_bytes=1000)
    assert await slots.take() == 1
    waiter = asyncio.create_task(slots.take())
    slots.settle(1, [500])
    await asyncio.sleep(0)
    assert not waiter.done()
    slots.give_back(500)
    assert await waiter == 1


# -- leases ------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_a_stale_handle_means_ownership_is_lost() -> None:
    """A lease that SQS refuses to extend is counted once and left alone; others go on."""
    queue, metrics = FakeQueue(), Metrics()
    queue.put("a", "b")
    first, second = await queue.receive(2, wait_s=0, visibility_timeout_s=5, in_flight=InFlight())
    keeper = LeaseKeeper(queue, visibility_timeout_s=0.1, metrics=metrics)  # type: ignore[arg-type]
    queue.stored[first.id].handle = "taken by another"
    lease = keeper.add(first)
    keeper.add(second)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(keeper.run())
        value = metrics.registry.get_sample_value
        labels = {"queue": "queue", "outcome": "ok"}
        await eventually(lambda: (value("stacworker_visibility_extensions_total", labels) or 0) >= 3)
        running.cancel()
    assert lease.lost
    assert value("stacworker_ownership_lost_total", {"queue": "queue"}) == 1


async def test_a_failed_extension_is_tried_again() -> None:
    """An error of SQS costs no lease while there is time left."""
    queue, metrics = FakeQueue(), Metrics()
    queue.put("a")
    (found,) = await queue.receive(1, wait_s=0, visibility_timeout_s=5, in_flight=InFlight())
    failures = iter([Unavailable("503", dependency="sqs")])
    queue.faults = lambda operation: next(failures, None) if operation == "change_visibility" else None
    keeper = LeaseKeeper(queue, visibility_timeout_s=0.2, metrics=metrics)  # type: ignore[arg-type]
    keeper.add(found)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(keeper.run())
        value = metrics.registry.get_sample_value
        await eventually(
            lambda: value("stacworker_visibility_extensions_total", {"queue": "queue", "outcome": "ok"}) == 1
        )
        running.cancel()
    assert value("stacworker_visibility_extensions_total", {"queue": "queue", "outcome": "failed"}) == 1


async def test_nobody_holds_a_message_longer_than_twelve_hours() -> None:
    """At SQS' own limit the lease is given up instead of being extended in vain."""
    clock, queue = Clock(), FakeQueue()
    queue.put("a")
    (found,) = await queue.receive(1, wait_s=0, visibility_timeout_s=5, in_flight=InFlight())
    keeper = LeaseKeeper(queue, visibility_timeout_s=60, metrics=Metrics(), monotonic=clock)  # type: ignore[arg-type]
    lease = keeper.add(found)
    clock.now += MAX_HOLD_S
    running = asyncio.create_task(keeper.run())
    await eventually(lambda: lease.lost)
    running.cancel()
    assert "change_visibility" not in queue.calls


async def test_a_message_near_the_twelve_hours_costs_its_neighbours_no_time() -> None:
    """Only its own extension is cut short."""
    clock = Clock()
    queue = FakeQueue(monotonic=clock)
    queue.put("old", "new")
    keeper = LeaseKeeper(queue, visibility_timeout_s=60, metrics=Metrics(), monotonic=clock)  # type: ignore[arg-type]
    (old,) = await queue.receive(1, wait_s=0, visibility_timeout_s=MAX_HOLD_S, in_flight=InFlight())
    keeper.add(old)
    clock.now += MAX_HOLD_S - 50
    (new,) = await queue.receive(1, wait_s=0, visibility_timeout_s=60, in_flight=InFlight())
    keeper.add(new)
    clock.now += 30
    running = asyncio.create_task(keeper.run())
    await eventually(lambda: "change_visibility" in queue.calls)
    running.cancel()
    left_s = {stored.body: stored.visible_at - clock.now for stored in queue.stored.values()}
    assert left_s == {"old": 20, "new": 60}


async def test_dropping_an_old_lease_leaves_a_newer_one() -> None:
    """A message that came again before its first task ended keeps its new lease."""
    keeper = LeaseKeeper(FakeQueue(), visibility_timeout_s=60, metrics=Metrics())  # type: ignore[arg-type]
    old = keeper.add(message())
    new = keeper.add(message())
    keeper.drop(old)
    assert keeper.get("m1") is new


# -- acks --------------------------------------------------------------------------------------------


class RefusingQueue(FakeQueue):
    """Refuses deletes as scripted: a list of Failed[] answers."""

    def __init__(self, *answers: dict[str, Failure]) -> None:
        super().__init__()
        self.answers = list(answers)
        self.asked: list[list[str]] = []

    async def delete(self, handles: object) -> dict[str, Failure]:
        self.asked.append(sorted(handles))  # type: ignore[call-overload]
        return self.answers.pop(0) if self.answers else {}


async def test_deletes_go_in_batches_of_ten() -> None:
    """Twenty-five deletes at once are three calls."""
    queue = RefusingQueue()
    acks = Acks(queue, metrics=Metrics())  # type: ignore[arg-type]
    keeper = LeaseKeeper(queue, visibility_timeout_s=60, metrics=Metrics())  # type: ignore[arg-type]
    await asyncio.gather(*(acks.delete(keeper.add(message(f"m{n}"))) for n in range(25)))
    assert sorted(map(len, queue.asked)) == [5, 10, 10]


async def test_a_partial_failure_is_tried_again_alone() -> None:
    """Entries that failed in passing are sent again; those with a dead handle are dropped and counted."""
    metrics = Metrics()
    queue = RefusingQueue(
        {"m1": Failure("InternalError", "", lost=False), "m2": Failure("ReceiptHandleIsInvalid", "", lost=True)}
    )
    acks = Acks(queue, metrics=metrics)  # type: ignore[arg-type]
    keeper = LeaseKeeper(queue, visibility_timeout_s=60, metrics=metrics)  # type: ignore[arg-type]
    await asyncio.gather(*(acks.delete(keeper.add(message(f"m{n}"))) for n in range(3)))
    assert queue.asked == [["m0", "m1", "m2"], ["m1"]]
    assert metrics.registry.get_sample_value("stacworker_delete_failures_total", {"queue": "queue"}) == 1


# -- circuit -----------------------------------------------------------------------------------------


async def test_an_idle_consumer_notices_an_outage_by_its_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe runs while the circuit is closed, so that no message is spent on finding out."""
    monkeypatch.setattr("stacworker.consume.circuit._CHECK_S", 0.01)
    away: list[Unavailable] = [AWAY]

    async def probe() -> None:
        if away:
            raise away[0]

    circuit = Circuit("items", probe, metrics=Metrics(), random=lambda: 0.0)
    running = asyncio.create_task(circuit.run())
    await eventually(lambda: circuit.is_open)
    assert circuit.reason == "waiting for database: gone"
    away.clear()
    await circuit.wait_closed()
    assert circuit.reason is None
    running.cancel()


async def test_a_probe_that_raises_anything_opens_the_circuit() -> None:
    """A defect in a user's ping pauses its consumer and nothing else."""
    broken: list[Exception] = [KeyError("host")]

    async def probe() -> None:
        if broken:
            raise broken[0]

    circuit = Circuit("items", probe, metrics=Metrics(), random=lambda: 0.0)
    running = asyncio.create_task(circuit.run())
    await eventually(lambda: circuit.is_open)
    assert circuit.reason == "waiting for unknown: KeyError: 'host'"
    broken.clear()
    await circuit.wait_closed()
    running.cancel()


async def test_a_probe_that_passes_while_work_fails_lets_little_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pauses grow although every probe passes; after a quiet time they begin anew."""
    monkeypatch.setattr("stacworker.consume.circuit._FIRST_PAUSE_S", 0.01)
    pauses: list[float] = []
    probed = asyncio.Event()

    async def probe() -> None:
        probed.set()

    circuit = Circuit("items", probe, metrics=Metrics(), random=lambda: 0.5)
    running = asyncio.create_task(circuit.run())
    await probed.wait()
    for _ in range(4):
        circuit.trip(AWAY)
        pauses.append(circuit._pause_s)
        await circuit.wait_closed()
    assert pauses == [0.0, 0.01, 0.02, 0.04]
    monkeypatch.setattr("stacworker.consume.circuit._TRUSTED_S", -1.0)
    circuit.trip(AWAY)
    assert circuit._pause_s == 0.0
    running.cancel()


# -- dead letters ------------------------------------------------------------------------------------


def letters(queue: FakeQueue) -> DeadLetters:
    return DeadLetters(queue, consumer="items", source_queue="https://q", fifo=False, now=lambda: 0.0)  # type: ignore[arg-type]


async def test_reasons_are_clipped_and_made_legal() -> None:
    """A reason of any length and content fits an attribute."""
    queue = FakeQueue()
    await letters(queue).send(message(), Permanent("\x00" + "é" * 5000))
    (letter,) = queue.stored.values()
    reason = letter.attributes["stacworker_reason"]["StringValue"]
    assert len(reason.encode()) <= 1024
    assert reason.startswith("\ufffdé")
    assert reason.endswith("…")


async def test_the_messages_own_attributes_fill_what_is_left_of_ten() -> None:
    """Ours come first; SQS takes ten."""
    queue = FakeQueue()
    own = {f"a{n}": {"DataType": "String", "StringValue": "v"} for n in range(9)}
    await letters(queue).send(message(attributes=own), Permanent("bad"))
    (letter,) = queue.stored.values()
    assert len(letter.attributes) == 10
    assert {"stacworker_reason", "a0"} <= set(letter.attributes)


@pytest.mark.parametrize("spare", [0, 100, 2000])
async def test_a_body_that_fills_a_message_is_kept_whole(spare: int) -> None:
    """The body is never cut; attributes give way."""
    queue = FakeQueue()
    body = "x" * (MAX_BODY_BYTES - spare)
    await letters(queue).send(message(body=body), Permanent("bad"))
    (letter,) = queue.stored.values()
    assert letter.body == body
    assert Letter(letter.body, letter.attributes).size_bytes <= MAX_BODY_BYTES


async def test_a_body_beyond_the_limits_of_sqs_is_sent_as_it_is() -> None:
    """Other servers take larger messages; such a one is not the end of the process."""
    queue = FakeQueue()
    body = "x" * (MAX_BODY_BYTES + 1)
    await letters(queue).send(message(body=body), Permanent("bad"))
    (letter,) = queue.stored.values()
    assert letter.body == body


async def test_a_part_too_large_for_a_message_is_stood_for_by_the_whole() -> None:
    """An item from an S3 object may be larger than a message: then the notification is kept."""
    queue = FakeQueue()
    refusal = Refusal(Permanent("bad"), "x" * (MAX_BODY_BYTES + 1))
    await letters(queue).send(message(body="the event"), Rejected((refusal,)))
    (letter,) = queue.stored.values()
    assert letter.body == "the event"


# -- groups ------------------------------------------------------------------------------------------


async def test_a_group_that_failed_opens_again_when_it_is_empty() -> None:
    """Those that waited behind a failure are held back for as long as it is; the next to come is not."""
    groups, seen = Groups(), []

    async def go(name: str, *, fail: bool = False) -> None:
        async with groups.turn("g") as turn:
            seen.append((name, turn.held_back_s))
            turn.failed_s = 7.0 if fail else None
            await asyncio.sleep(0)

    await asyncio.gather(go("1", fail=True), go("2"), go("3"))
    await go("4")
    assert seen == [("1", None), ("2", 7.0), ("3", 7.0), ("4", None)]


async def test_what_comes_after_a_failure_is_not_held_back() -> None:
    """The failed message may be delivered again while others of its first delivery are still let go."""
    groups, letting_go = Groups(), asyncio.Event()
    seen: list[tuple[str, float | None]] = []

    async def go(name: str, *, fail: bool = False) -> None:
        async with groups.turn("g") as turn:
            seen.append((name, turn.held_back_s))
            held_back = turn.held_back_s is not None
            turn.failed_s = 7.0 if fail or held_back else None
            await (letting_go.wait() if held_back else asyncio.sleep(0))

    old = asyncio.gather(go("bad", fail=True), go("next"))
    await eventually(lambda: len(seen) == 2)
    new = asyncio.gather(go("bad again"), go("next again"))
    await asyncio.sleep(0)
    letting_go.set()
    await asyncio.gather(old, new)
    assert seen == [("bad", None), ("next", 7.0), ("bad again", None), ("next again", None)]


async def test_leaving_the_line_lets_the_next_one_in() -> None:
    """A message that is cancelled while it waits for its turn does not block its group."""
    groups, gate = Groups(), asyncio.Event()

    async def first() -> None:
        async with groups.turn("g"):
            await gate.wait()

    async def other() -> None:
        async with groups.turn("g"):
            pass

    tasks = [asyncio.create_task(first()), asyncio.create_task(other()), asyncio.create_task(other())]
    await asyncio.sleep(0)
    tasks[1].cancel()
    gate.set()
    await asyncio.wait(tasks)
    assert not tasks[2].cancelled()


# -- sqs ---------------------------------------------------------------------------------------------


async def test_sends_are_split_by_count_and_size() -> None:
    """No call carries more than ten entries or a megabyte."""
    calls: list[list[int]] = []

    class Client:
        async def send_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, str]]) -> dict[str, object]:  # noqa: N803
            calls.append([len(entry["MessageBody"]) for entry in Entries])
            return {"Successful": Entries[1:], "Failed": [{"Id": Entries[0]["Id"], "Code": "InternalError"}]}

    queue = SqsQueue(Client(), "https://q", "q")
    failed = await queue.send([Letter("x" * 600_000, {}), Letter("y" * 600_000, {}), *[Letter("z", {})] * 12])
    assert calls == [[600_000], [600_000, *[1] * 9], [1, 1, 1]]
    assert sorted(failed) == [0, 1, 11]


async def test_a_letter_is_sent_when_sqs_says_so() -> None:
    """An answer that names nobody, as a broken proxy gives it, is not taken for success."""

    class Client:
        async def send_message_batch(self, **_: object) -> dict[str, object]:
            return {"ResponseMetadata": {"HTTPStatusCode": 200}}

    failed = await SqsQueue(Client(), "https://q", "q").send([Letter("a", {})])
    assert [failure.code for failure in failed.values()] == ["Unanswered"]
