"""How far ahead of its work a consumer receives."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

import pytest

from stacworker.api import Message
from stacworker.consume.lookahead import Lookahead
from stacworker.consume.slots import Slots
from stacworker.errors import Unavailable
from stacworker.testing.queue import FakeQueue
from tests.unit.consume.harness import Bench, eventually, running

HUNDRED = tuple(str(number) for number in range(100))


def test_as_many_as_were_worked_off_lately() -> None:
    """Twice what is worked on at a time at least, more after quick work, less again after a pause."""
    now = 100.0
    lookahead = Lookahead(2, monotonic=lambda: now)
    assert lookahead.limit == 4
    for _ in range(6):
        lookahead.worked_off()
    assert lookahead.limit == 10
    now += 2.6
    lookahead.worked_off()
    assert lookahead.limit == 11
    now += 2.5
    assert lookahead.limit == 5
    now += 100
    assert lookahead.limit == 4


def test_nobody_is_kept_from_working() -> None:
    """At least two, whatever is said of what is worked on at a time."""
    assert Lookahead(0).limit == 2


@pytest.mark.parametrize(("ahead", "free"), [(0, 0), (-3, 0), (3, 3), (30, 8)])
async def test_room_is_what_every_limit_leaves(ahead: int, free: int) -> None:
    """The least of the limits counts."""
    assert Slots(max_messages=8, max_bytes=1 << 30, ahead=lambda _: ahead).free == free
    assert Slots(max_messages=0, max_bytes=1 << 30, ahead=lambda _: ahead).free == 0


async def test_few_are_received_while_none_is_done() -> None:
    """Of a hundred that take long, as many are in hand as are worked on and as many again; the others are left."""
    go = asyncio.Event()

    async def work(message: Message) -> None:
        with message.in_flight.working():
            await go.wait()

    async with running(work, bodies=HUNDRED, at_once=3) as bench:
        await eventually(lambda: len(bench.consumer.handled) == 6)
        await settled(bench, 6)
        go.set()
        await eventually(lambda: not bench.queue.stored)
    assert bench.outcomes() == {"acked": 100}


async def test_after_quick_work_more_is_taken() -> None:
    """What was worked off lately may be in hand again, however long it takes now."""
    go = asyncio.Event()

    async def work(message: Message) -> None:
        with message.in_flight.working():
            if int(message.body) >= 20:
                await go.wait()

    async with running(work, bodies=HUNDRED, at_once=1, monotonic=lambda: 1.0) as bench:
        await eventually(lambda: len(bench.consumer.handled) == 20 + 2 + 20)
        await settled(bench, 42)
        go.set()
        await eventually(lambda: not bench.queue.stored)


async def test_what_waited_for_others_for_long_still_makes_room() -> None:
    """Work that was done long ago, and waits in a batch, is not work that has to be done."""
    go = asyncio.Event()
    clock = count(start=0.0, step=6.0)  # what was done is long ago at the next look

    async def work(message: Message) -> None:
        with message.in_flight.working() as done:
            done()
            with message.in_flight.waiting(_nothing):
                await go.wait()

    async with running(work, bodies=HUNDRED[:20], at_once=1, monotonic=lambda: next(clock)) as bench:
        await eventually(lambda: len(bench.consumer.handled) == 20)
        go.set()
        await eventually(lambda: not bench.queue.stored)


async def test_what_only_waits_for_others_makes_room() -> None:
    """A message whose work is done and that waits in a batch does not count: the batch goes on filling."""
    go = asyncio.Event()

    async def work(message: Message) -> None:
        with message.in_flight.working() as done:
            done()
            with message.in_flight.waiting(go.set):
                await go.wait()

    async with running(work, bodies=HUNDRED, at_once=1) as bench:
        await eventually(lambda: not bench.queue.stored)
    assert bench.outcomes() == {"acked": 100}


async def test_a_batch_is_not_flushed_because_nobody_looks_ahead() -> None:
    """All in hand wait, and the engine is held back by what it may hold: more is to come, so the batch waits for it."""
    flushed_with: list[int] = []
    waiting: list[asyncio.Future[None]] = []

    def flush() -> None:
        flushed_with.append(len(waiting))
        for each in waiting:
            each.set_result(None)
        waiting.clear()

    async def work(message: Message) -> None:
        with message.in_flight.working() as done:
            await asyncio.sleep(0)
            mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiting.append(mine)
            done()
            with message.in_flight.waiting(flush):
                await mine

    async with running(work, bodies=HUNDRED, at_once=2) as bench:
        await eventually(lambda: not bench.queue.stored)
    assert max(flushed_with) == 100


async def test_who_waited_for_room_receives_nothing_in_an_outage() -> None:
    """Pollers that were held back when a dependency went away let the room be: what they took would be given back."""
    away, go = asyncio.Event(), asyncio.Event()

    async def work(message: Message) -> None:
        with message.in_flight.working():
            await go.wait()
            if away.is_set():
                raise Unavailable("away", dependency="database")

    queue = FakeQueue()
    queue.put(*HUNDRED)
    async with running(work, queue=queue, at_once=2, monotonic=lambda: 1.0, backoff_base_s=60.0) as bench:
        await eventually(lambda: len(bench.consumer.handled) == 4)
        bench.consumer.away = Unavailable("away", dependency="database")
        away.set()
        go.set()
        await eventually(lambda: bench.engine.paused_because is not None and bench.count("in_flight_messages") == 1)
        for _ in range(100):
            await asyncio.sleep(0.002)
        assert len([each for each in queue.stored.values() if each.receives]) == 4
        assert not bench.engine.in_flight.stalled
        away.clear()
        bench.consumer.away = None
        bench.lifecycle.stop("test")


async def test_a_batch_goes_when_it_holds_what_others_need_for_their_work() -> None:
    """Messages whose work needs what the batch holds wait too, and keep more from being received."""
    flushed = asyncio.Event()

    async def work(message: Message) -> None:
        with message.in_flight.working() as done:
            if message.body == "0":
                done()
                with message.in_flight.waiting(flushed.set):
                    await flushed.wait()
            else:
                with message.in_flight.waiting(flushed.set):
                    await flushed.wait()

    async with running(work, bodies=HUNDRED, at_once=2, max_pollers=1, monotonic=lambda: 1.0) as bench:
        await eventually(lambda: not bench.queue.stored)


@pytest.mark.parametrize("max_pollers", [1, 8])
async def test_a_message_that_waits_for_its_turn_keeps_no_other_group_out(max_pollers: int) -> None:
    """Twenty of one FIFO group, the first of which takes long, do not keep the next group's from being worked on."""
    go = asyncio.Event()

    async def work(message: Message) -> None:
        with message.in_flight.working():
            if message.body == "a0":
                await go.wait()

    queue = FakeQueue(fifo=True)
    queue.put(*(f"a{number}" for number in range(20)), group_id="a")
    queue.put("b0", group_id="b")
    async with running(work, queue=queue, at_once=1, fifo=True, max_pollers=max_pollers) as bench:
        await eventually(lambda: "b0" in bench.consumer.handled)
        go.set()
        await eventually(lambda: not bench.queue.stored)


def _nothing() -> None:
    pass


async def settled(bench: Bench, handled: int) -> None:
    """Give the engine many turns, in which it must not take more."""
    for _ in range(50):
        await asyncio.sleep(0)
        assert len(bench.consumer.handled) == handled


async def test_a_drain_that_meets_a_full_receive_lets_batches_go() -> None:
    """Nothing more comes once the receive under way has been given back: who waits in a batch need not wait for it."""
    gate = asyncio.Event()

    class Gated(FakeQueue):
        async def receive(self, *arguments: Any, **named: Any) -> list[Message]:
            if len(self.stored) and sum(bool(each.receives) for each in self.stored.values()) >= 20:
                await gate.wait()
            return await super().receive(*arguments, **named)

    async def work(message: Message) -> None:
        flushed = asyncio.Event()
        with message.in_flight.waiting(flushed.set):
            await flushed.wait()

    queue = Gated()
    queue.put(*HUNDRED)
    async with running(work, queue=queue, max_pollers=1, drain_timeout_s=60.0) as bench:
        await eventually(lambda: len(bench.consumer.handled) == 20)
        bench.lifecycle.stop("test")
        gate.set()
        await bench.drain()
    assert bench.outcomes() == {"acked": 20, "released": 10}
