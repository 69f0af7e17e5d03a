"""The engine against a model queue, in whatever order hypothesis lets things happen, in virtual time.

The real engine with all its parts, on a queue in memory that fails, loses answers and delivers twice. The event
loop's clock jumps to the next timer, so that hours pass in milliseconds. ENGINE_EXAMPLES=5000 looks longer.
"""

from __future__ import annotations

import asyncio
import os
import selectors
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import structlog
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from stacworker.api import Message
from stacworker.consume.deadletter import DeadLetters
from stacworker.consume.engine import Engine, Limits
from stacworker.consume.sqs import Failure, Letter
from stacworker.errors import Permanent, Refusal, Rejected, Transient, Unavailable
from stacworker.lifecycle import Lifecycle
from stacworker.metrics import Metrics
from stacworker.testing.queue import FakeQueue

MAX_IN_FLIGHT = 7
VISIBILITY_S = 30.0
DRAIN_S = 40.0
AWAY = Unavailable("away", dependency="database", error_class="no_resources")
ENDINGS = ("ok", "permanent", "rejected", "transient", "away", "unexpected", "exit", "cancelled", "slow", "hangs")
OPERATIONS = ("receive", "delete", "change_visibility", "send")
FAULTS = ("refused", "away", "answer lost", "in part", "lost", "slow")


class _Jump(selectors.SelectSelector):
    """Waits for no time to pass: where nothing is ready, it has passed."""

    now_s = 1000.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready and timeout:
            self.now_s += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is its own."""

    def __init__(self) -> None:
        self.jump = _Jump()
        super().__init__(self.jump)

    def time(self) -> float:
        return self.jump.now_s


class Model(FakeQueue):
    """A queue with faults to come, by operation; it keeps what breaks a promise in `broken`."""

    def __init__(self, world: World, name: str, *, fifo: bool) -> None:
        super().__init__(
            name,
            fifo=fifo,
            visibility_timeout_s=VISIBILITY_S,
            monotonic=world.loop.time,
            now=world.loop.time,
            look_every_s=5.0,
        )
        self.world = world
        self.coming: defaultdict[str, list[str]] = defaultdict(list)
        self.twice = 0
        self.held: set[str] = set()

    async def receive(self, *args: Any, **kwargs: Any) -> list[Message]:
        fault = self._fault("receive")
        messages = await super().receive(*args, **kwargs)
        await self._after(fault)
        self.held.update(message.id for message in messages)  # whose answer was lost nobody holds
        if messages and self.twice and not self.fifo:
            self.twice -= 1
            messages.append(messages[0])
        return messages

    async def delete(self, handles: Mapping[str, str]) -> dict[str, Failure]:
        self.held -= handles.keys()  # what is refused here comes again when its lease ends
        fault = self._fault("delete")
        for id_ in handles:
            if id_ in self.stored and not self.world.is_done(self.stored[id_].body):
                self.world.broken.append(f"{id_} is deleted and not done")
        return await self._batch(fault, handles, super().delete)

    async def change_visibility(self, entries: Mapping[str, tuple[str, float]]) -> dict[str, Failure]:
        self.held -= {id_ for id_, (_, seconds) in entries.items() if seconds != VISIBILITY_S}  # as with deletes
        return await self._batch(self._fault("change_visibility"), entries, super().change_visibility)

    async def send(self, letters: Sequence[Letter]) -> dict[int, Failure]:
        fault = self._fault("send")
        failed: dict[int, Failure] = {}
        if fault in ("in part", "lost"):
            failed = {0: Failure("InternalError", "injected", lost=fault == "lost")}
        taken = [letter for position, letter in enumerate(letters) if position not in failed]
        await super().send(taken)
        self.world.letters.update(letter.body for letter in taken)
        await self._after(fault)
        return failed

    async def _batch(self, fault: str | None, entries: Mapping[str, Any], act: Any) -> dict[str, Failure]:
        failed: dict[str, Failure] = {}
        if fault in ("in part", "lost"):
            failed[next(iter(entries))] = Failure("InternalError", "injected", lost=fault == "lost")
        found: dict[str, Failure] = await act({id_: entry for id_, entry in entries.items() if id_ not in failed})
        await self._after(fault)
        return {**found, **failed}

    def _fault(self, operation: str) -> str | None:
        fault = self.coming[operation].pop(0) if self.coming[operation] else None
        if fault == "refused":
            raise Permanent("refused", error_class="sqs_refused")
        if fault == "away":
            raise Unavailable("503", dependency="sqs")
        return fault

    async def _after(self, fault: str | None) -> None:
        if fault == "slow":
            await asyncio.sleep(7.0)
        if fault == "answer lost":
            raise Unavailable("connection reset", dependency="sqs")


@dataclass
class World:
    """What all engines share, and what was seen."""

    loop: VirtualLoop
    fifo: bool
    endings: dict[str, list[tuple[str, float]]] = field(default_factory=dict)
    succeeded: set[str] = field(default_factory=set)
    letters: set[str] = field(default_factory=set)
    ended: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    broken: list[str] = field(default_factory=list)
    is_away: bool = False

    def is_done(self, body: str) -> bool:
        """Say whether a message may be deleted."""
        return body in self.succeeded or any(letter.startswith(body) for letter in self.letters)


class Handler:
    """A consumer that does what was planned for each message, attempt by attempt, and then succeeds."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._active: set[str] = set()

    async def handle(self, message: Message) -> None:
        world = self._world
        if message.id in self._active:
            world.broken.append(f"{message.id} is worked on twice at the same time")
        self._active.add(message.id)
        try:
            await self._end(message)
        finally:
            self._active.discard(message.id)
        world.succeeded.add(message.body)
        world.ended[message.group_id or ""].append(message.body)

    async def _end(self, message: Message) -> None:
        planned = self._world.endings[message.body]
        ending, seconds = planned.pop(0) if planned else ("ok", 0.0)
        await asyncio.sleep(seconds)
        if self._world.is_away:
            raise AWAY
        match ending:
            case "permanent" | "rejected":
                self._world.ended[message.group_id or ""].append(message.body)
                error = Permanent("bad")
                raise error if ending == "permanent" else Rejected((Refusal(error, f"{message.body}-part"),))
            case "transient":
                raise Transient("deadlock")
            case "away":
                raise AWAY
            case "unexpected":
                raise ValueError("nobody foresaw this")
            case "exit":
                raise SystemExit(3)
            case "cancelled":
                raise asyncio.CancelledError
            case "slow":
                await asyncio.sleep(4 * VISIBILITY_S)
            case "hangs":
                await asyncio.sleep(900.0)

    async def ping(self) -> None:
        if self._world.is_away:
            raise AWAY


class Replica:
    """One engine with its metrics."""

    def __init__(self, world: World, queue: Model, dead: Model) -> None:
        self.metrics = Metrics()
        self.lifecycle = Lifecycle(drain_timeout_s=DRAIN_S, monotonic=world.loop.time)
        letters = DeadLetters(
            dead,  # type: ignore[arg-type]
            consumer="items",
            source_queue=queue.url,
            fifo=world.fifo,
            now=world.loop.time,
        )
        self.engine = Engine(
            name="items",
            queue=queue,  # type: ignore[arg-type]
            consumer=Handler(world),
            dead_letters=letters,
            limits=Limits(
                max_in_flight=MAX_IN_FLIGHT,
                visibility_timeout_s=VISIBILITY_S,
                max_receive_count=4,
                backoff_max_s=60.0,
            ),
            fifo=world.fifo,
            lifecycle=self.lifecycle,
            metrics=self.metrics,
            now=world.loop.time,
            monotonic=world.loop.time,
            random=lambda: 0.5,
        )
        self.task = world.loop.create_task(self.engine.run())

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"stacworker_{name}", {"queue": "queue", **labels}) or 0.0

    @property
    def outcomes(self) -> float:
        names = ("acked", "retried", "dead_lettered", "released")
        return sum(self.count("messages_total", outcome=name) for name in names)


class EngineMachine(RuleBasedStateMachine):
    """Everything that may happen to engines that share a queue."""

    @initialize(fifo=st.booleans())
    def begin(self, fifo: bool) -> None:  # noqa: FBT001
        structlog.configure(processors=[_drop])
        self.loop = VirtualLoop()
        asyncio.set_event_loop(self.loop)
        self.world = World(self.loop, fifo)
        self.queue = Model(self.world, "queue", fifo=fifo)
        self.dead = Model(self.world, "dead", fifo=False)
        self.sent: list[str] = []
        self.replicas = [Replica(self.world, self.queue, self.dead)]
        self.pass_time(0.0)

    @rule(
        groups=st.lists(st.sampled_from("ab"), min_size=1, max_size=12),
        endings=st.lists(st.tuples(st.sampled_from(ENDINGS), st.sampled_from((0.0, 0.5, 45.0))), max_size=3),
    )
    def send(self, groups: list[str], endings: list[tuple[str, float]]) -> None:
        """Send messages that end alike."""
        for group in groups:
            body = f"{len(self.sent):04}"
            self.sent.append(body)
            self.world.endings[body] = list(endings)
            self.queue.put(body, group_id=group if self.world.fifo else None)

    @rule(seconds=st.sampled_from((0.0, 0.01, 0.3, 3.0, 17.0, 31.0, 90.0, 700.0)))
    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        self.loop.run_until_complete(asyncio.sleep(seconds))

    @rule(
        operation=st.sampled_from(OPERATIONS),
        faults=st.lists(st.sampled_from(FAULTS), min_size=1, max_size=5),
    )
    def fail(self, operation: str, faults: list[str]) -> None:
        """Let the next calls of a kind fail, of the queue or (send) of its dead-letter queue."""
        queue = self.dead if operation == "send" else self.queue
        queue.coming[operation] += faults

    @rule(times=st.integers(1, 3))
    def deliver_twice(self, times: int) -> None:
        """Let the next receives bring a message two times."""
        self.queue.twice = times

    @rule()
    def drain_all(self) -> None:
        """Stop all replicas while the queue answers: each gives back whatever it has received and not ended."""
        self.queue.coming.clear()
        self.dead.coming.clear()
        for replica in self.replicas:
            replica.lifecycle.stop("test")
        self.pass_time(DRAIN_S + 10.0)
        assert [replica.task.done() for replica in self.replicas] == [True] * len(self.replicas)
        assert self.queue.held & self.queue.stored.keys() == set()
        self.replicas = [Replica(self.world, self.queue, self.dead)]

    @rule(place=st.integers(0, 30))
    def expire(self, place: int) -> None:
        """Make a message visible behind the back of whoever works on it."""
        if self.queue.stored and not self.world.fifo:
            list(self.queue.stored.values())[place % len(self.queue.stored)].visible_at = self.loop.time()

    @rule(is_away=st.booleans())
    def outage(self, is_away: bool) -> None:  # noqa: FBT001
        """Let what the consumer needs go away, or come back."""
        self.world.is_away = is_away

    @rule()
    def start_another(self) -> None:
        """Start one more replica."""
        if len(self.replicas) < 4:
            self.replicas.append(Replica(self.world, self.queue, self.dead))

    @rule(place=st.integers(0, 3))
    def drain_one(self, place: int) -> None:
        """Stop a replica."""
        self.replicas[place % len(self.replicas)].lifecycle.stop("test")

    @invariant()
    def keeps_its_promises(self) -> None:
        """Check what holds at any moment."""
        if not hasattr(self, "world"):
            return
        assert self.world.broken == []
        assert len(self.queue.stored) + len(self.queue.deleted) == len(self.sent)
        for replica in self.replicas:
            assert not replica.task.done() or replica.task.exception() is None
            slots = replica.engine._slots
            assert 0 <= slots._messages <= MAX_IN_FLIGHT
            in_hand = replica.count("in_flight_messages")
            assert replica.count("messages_received_total") == replica.outcomes + in_hand
            if replica.task.done():
                assert in_hand == 0

    def teardown(self) -> None:
        """Let all faults end: then everything is worked off, and every engine ends in time."""
        if not hasattr(self, "world"):
            return
        try:
            self.world.is_away = False
            self.queue.coming.clear()
            self.dead.coming.clear()
            if all(replica.lifecycle.draining.is_set() for replica in self.replicas):
                self.replicas.append(Replica(self.world, self.queue, self.dead))
            for _ in range(150):
                self.pass_time(600.0)
                if not self.queue.stored:
                    break
            assert self.queue.stored == {}, "left over"
            self.pass_time(120.0)
            self.keeps_its_promises()
            for replica in self.replicas:
                replica.lifecycle.stop("end")
            self.pass_time(DRAIN_S + 30.0)
            assert [replica.task.done() for replica in self.replicas] == [True] * len(self.replicas)
            for replica in self.replicas:
                engine = replica.engine
                assert (engine._slots._messages, engine._slots._bytes, engine._bytes_held) == (0, 0, 0)
            self.keeps_its_promises()
            if self.world.fifo:
                self._check_order()
        finally:
            self._close()

    def _check_order(self) -> None:
        """In each group the first end of each message comes in the order of sending."""
        for group, bodies in self.world.ended.items():
            first_ends = list(dict.fromkeys(bodies))
            assert first_ends == sorted(first_ends), group
            assert Counter(bodies).keys() == set(first_ends)

    def _close(self) -> None:
        for replica in self.replicas:
            replica.task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                self.loop.run_until_complete(replica.task)
        asyncio.set_event_loop(None)
        self.loop.close()
        structlog.reset_defaults()


def _drop(*_: Any) -> Any:
    raise structlog.DropEvent


TestEngineMachine = EngineMachine.TestCase
TestEngineMachine.settings = settings(
    max_examples=int(os.environ.get("ENGINE_EXAMPLES", "100")),
    stateful_step_count=25,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
