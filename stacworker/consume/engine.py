"""The life of a message, and the loop around it.

`Engine._carry` is the whole story of one message, from receipt to outcome. Around it: pollers that take
room before they receive, leases that last as long as the work, deletes in batches, and an ordered drain.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from random import random as system_random

import structlog

from stacworker import tracing
from stacworker.api import Consumer, Message
from stacworker.consume.acks import Acks
from stacworker.consume.circuit import Circuit
from stacworker.consume.groups import Groups, Turn
from stacworker.consume.lease import Lease, LeaseKeeper
from stacworker.consume.lookahead import Lookahead
from stacworker.consume.outcome import Outcome, unexpected
from stacworker.consume.queue import DeadLetterBox, Queue
from stacworker.consume.settle import Settler
from stacworker.consume.slots import Slots
from stacworker.consume.sqs import size_bytes
from stacworker.errors import Permanent, StacworkerError, Unavailable
from stacworker.inflight import InFlight
from stacworker.lifecycle import Lifecycle
from stacworker.metrics import Metrics

log = structlog.get_logger()

_RELEASE_TIMEOUT_S = 5.0
_DEPTH_EVERY_S = 15.0
_DRY_AFTER_S = 0.2
"""SQS answers a receive at once when it has messages: after this long no more are expected from it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one consumer; the fields are those of `stacworker.settings.ConsumerSettings`, but for the last."""

    max_in_flight: int = 2000
    max_in_flight_bytes: int = 256_000_000
    visibility_timeout_s: float = 60.0
    max_receive_count: int = 5
    max_pollers: int = 8
    wait_time_s: int = 20
    backoff_base_s: float = 2.0
    backoff_max_s: float = 900.0
    at_once: int | None = None
    """How many messages the consumer works on at a time; None: as many as there are."""


class Engine:
    """Carries the messages of one queue to one consumer."""

    def __init__(
        self,
        *,
        name: str,
        queue: Queue,
        consumer: Consumer,
        dead_letters: DeadLetterBox | None,
        limits: Limits,
        fifo: bool,
        lifecycle: Lifecycle,
        metrics: Metrics,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = system_random,
    ) -> None:
        self.name = name
        self._queue = queue
        self._consumer = consumer
        self._limits = limits
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._now = now
        self.in_flight = InFlight()
        self.keeper = LeaseKeeper(
            queue, visibility_timeout_s=limits.visibility_timeout_s, metrics=metrics, monotonic=monotonic
        )
        self.circuit = Circuit(name, self.ping, metrics=metrics, random=random)
        self._settler = Settler(
            dead_letters=dead_letters,
            circuit=self.circuit,
            max_receive_count=limits.max_receive_count,
            backoff_base_s=limits.backoff_base_s,
            backoff_max_s=limits.backoff_max_s,
            latency=metrics.end_to_end_latency.labels(queue.name),
            last_success=metrics.last_success.labels(name),
            draining=lifecycle.draining.is_set,
            now=now,
            random=random,
        )
        self._acks = Acks(queue, metrics=metrics)
        self._lookahead = Lookahead(limits.at_once, monotonic=monotonic) if limits.at_once is not None else None
        self._slots = Slots(
            max_messages=limits.max_in_flight,
            max_bytes=limits.max_in_flight_bytes,
            ahead=self._ahead if self._lookahead is not None else None,
        )
        self.in_flight.on_worked_off = self._worked_off
        self.in_flight.more_to_come = self._more_to_come
        self._groups = Groups() if fifo else None
        self._messages: set[asyncio.Task[None]] = set()
        self._pollers: set[asyncio.Task[None]] = set()
        self._resting: set[asyncio.Task[None]] = set()
        self._waiting_turn = 0
        self._trials: set[str] = set()
        self._receives = 0
        self._abandoned: list[Lease] = []
        self._last_receive_full = False
        self._bytes_held = 0
        self._ended = False
        self._released_in_drain = 0
        self._count_received = metrics.messages_received.labels(queue.name)
        self._count_outcome = {outcome: metrics.messages.labels(queue.name, outcome.value) for outcome in Outcome}
        self._count_duplicate = metrics.duplicate_deliveries.labels(queue.name)
        metrics.in_flight_messages.labels(queue.name).set_function(lambda: len(self._messages))
        metrics.in_flight_bytes.labels(queue.name).set_function(lambda: self._bytes_held)
        metrics.oldest_message_age.labels(queue.name).set_function(self._oldest_age_s)

    @property
    def beat_at(self) -> float:
        """When the lease loop last went round, in monotonic seconds; once the drain is over it need not."""
        return math.inf if self._ended else self.keeper.beat_at

    @property
    def beat_every_s(self) -> float:
        """How often the lease loop goes round at least, in seconds."""
        return max(1.0, self._limits.visibility_timeout_s / 4)

    @property
    def paused_because(self) -> str | None:
        """Why the queue is not polled now; None while it is."""
        return self.circuit.reason

    @property
    def longest_held_s(self) -> float:
        """How long the message that is in hand longest has been so.

        What only waits for an outage to be over does not count.
        """
        return self.keeper.longest_held_s(besides=self._trials)

    async def ping(self) -> None:
        """Raise `Unavailable` when the queue or something the consumer needs does not answer."""
        await self._queue.describe()
        await self._consumer.ping()

    async def run(self) -> None:
        """Work until the drain is over. Raises when the engine itself breaks, never for a message."""
        async with asyncio.TaskGroup() as infrastructure:
            background = [
                infrastructure.create_task(self.keeper.run(), name=f"leases:{self.name}"),
                infrastructure.create_task(self.circuit.run(), name=f"circuit:{self.name}"),
                infrastructure.create_task(self._watch_depth(), name=f"depth:{self.name}"),
            ]
            try:
                async with asyncio.TaskGroup() as work:
                    self._add_poller(work)
                    await self._lifecycle.draining.wait()
                    await self._drain()
            finally:
                self._ended = True
                for task in background:
                    task.cancel()

    # -- receiving -----------------------------------------------------------------------------------

    def _add_poller(self, work: asyncio.TaskGroup) -> None:
        poller = work.create_task(self._poll(work), name=f"poll:{self.name}")
        self._pollers.add(poller)
        poller.add_done_callback(self._pollers.discard)

    async def _poll(self, work: asyncio.TaskGroup) -> None:
        """Take room, receive, start. Help comes while receives come back full, and goes when they are empty."""
        while not self._lifecycle.draining.is_set():
            messages = await self._receive(await self._room())
            if self._lifecycle.draining.is_set():
                self._expect()
                await self._release_unstarted(messages)
                return
            for message in messages:
                self._start(message, work)
            if self._last_receive_full and len(self._pollers) < self._limits.max_pollers:
                self._add_poller(work)
            elif not messages and len(self._pollers) > 1:
                # At once, not when the task is done: else all that are idle together count each other, and go.
                self._pollers.discard(asyncio.current_task())
                break
            self._expect()
        self._expect()

    async def _room(self) -> int:
        """Wait for a closed circuit and for room. Only here does a drain cancel a poller: it holds no message."""
        me = asyncio.current_task()
        assert me is not None  # noqa: S101
        self._resting.add(me)
        try:
            while True:
                await self.circuit.wait_closed()
                reserved = await self._slots.take()
                if not self.circuit.is_open:
                    return reserved
                # An outage began while there was no room: what would be received now could only be given back.
                self._slots.settle(reserved, [])
                self._expect()
        finally:
            self._resting.discard(me)

    async def _receive(self, reserved: int) -> list[Message]:
        """Receive into reserved room. Not to be cancelled: SQS may have handed messages out already."""
        self._receives += 1
        self._expect()
        dry = asyncio.get_running_loop().call_later(_DRY_AFTER_S, self._run_dry)
        messages: list[Message] = []
        try:
            messages = await self._queue.receive(
                reserved,
                wait_s=self._limits.wait_time_s,
                visibility_timeout_s=self._limits.visibility_timeout_s,
                in_flight=self.in_flight,
            )
        except Unavailable as error:
            self.circuit.trip(error)
        except Permanent as error:  # the queue is gone, or our request is refused: nothing else will work either
            self.circuit.trip(Unavailable(error.reason, dependency="sqs", error_class=error.error_class))
        finally:
            dry.cancel()
            self._receives -= 1
            self._slots.settle(reserved, [_size_bytes(message) for message in messages])
        self._last_receive_full = len(messages) == reserved
        return messages

    def _expect(self) -> None:
        """Tell the batches whether more messages are about to arrive."""
        self.in_flight.expect_more(self._more_to_come())

    def _more_to_come(self) -> bool:
        if not self._last_receive_full or self._receives > 0:
            return self._last_receive_full
        # Where work in hand keeps us from receiving, room for more means that a poller is about to.
        stopped = self._lifecycle.draining.is_set() or self.circuit.is_open
        return self._lookahead is not None and not stopped and self._slots.free > 0

    def _ahead(self, messages: int) -> int:
        """Return how many more messages than these may be in hand before more of their work is done."""
        assert self._lookahead is not None  # noqa: S101
        return self._lookahead.limit - (messages - self.in_flight.worked_off - self._waiting_turn)

    def _worked_off(self) -> None:
        if self._lookahead is not None:
            self._lookahead.worked_off()
            self._slots.wake()

    def _run_dry(self) -> None:
        self._last_receive_full = False
        self._expect()

    def _start(self, message: Message, work: asyncio.TaskGroup) -> None:
        held_bytes = _size_bytes(message)
        lease = self.keeper.get(message.id)
        if lease is not None:
            self.keeper.renew(lease, message)
            self._slots.give_back(held_bytes)
            self._count_duplicate.inc()
            return
        self._count_received.inc()
        self._bytes_held += held_bytes
        self.in_flight.enter()
        task = work.create_task(self._carry(self.keeper.add(message), held_bytes))
        self._messages.add(task)
        task.add_done_callback(self._messages.discard)

    # -- one message ---------------------------------------------------------------------------------

    async def _carry(self, lease: Lease, held_bytes: int) -> None:
        """Carry one message from receipt to outcome. No failure of the message leaves this function."""
        message = lease.message
        structlog.contextvars.bind_contextvars(consumer=self.name, message_id=message.id)
        outcome = Outcome.RELEASED
        worked_on = False
        try:
            async with AsyncExitStack() as stack:
                turn = await self._turn(message, stack)
                if turn is not None and turn.held_back_s is not None:
                    await self._give_back(lease, turn.held_back_s)
                else:
                    worked_on = True
                    outcome, again_after_s = await self._outcome(lease)
                    if again_after_s is None:
                        await self._acks.delete(lease)
                    else:
                        await self._give_back(lease, again_after_s)
                    if turn is not None:
                        turn.failed_s = again_after_s
        except asyncio.CancelledError:
            if outcome is Outcome.RELEASED:
                self._abandoned.append(lease)
            raise
        finally:
            if not worked_on:
                self.in_flight.leave()
            self.keeper.drop(lease)
            self._slots.give_back(held_bytes)
            self._bytes_held -= held_bytes
            self._count(outcome)
            if (me := asyncio.current_task()) is not None:
                self._messages.discard(me)  # now and not a turn of the loop later: the accounts add up at any moment

    async def _outcome(self, lease: Lease) -> tuple[Outcome, float | None]:
        """Work on a message, and return how it ends and after how long it comes again, if it does."""
        message = lease.message
        with tracing.span(
            f"process {self._queue.name}",
            kind="consumer",
            carried_by=message.attributes,
            messaging__system="aws_sqs",
            messaging__operation__type="process",
            messaging__destination__name=self._queue.name,
            messaging__message__id=message.id,
            stacworker__receive_count=message.receive_count,
        ) as span:
            error = await self._work(message)
            # Until it is settled it is neither done nor anybody else's: a drain's end releases it.
            outcome, again_after_s = await self._settler.settle(lease.message, error)
            tracing.tell(span, error, outcome.value)
            return outcome, again_after_s

    def _count(self, outcome: Outcome) -> None:
        self._count_outcome[outcome].inc()
        if outcome is Outcome.RELEASED and self._lifecycle.draining.is_set():
            self._released_in_drain += 1

    async def _turn(self, message: Message, stack: AsyncExitStack) -> Turn | None:
        """Wait for the message's turn in its group; None where order does not matter."""
        if self._groups is None or message.group_id is None:
            return None
        self._waiting_turn += 1
        self._slots.wake()
        try:
            with self.in_flight.waiting(_nothing):
                return await stack.enter_async_context(self._groups.turn(message.group_id))
        finally:
            self._waiting_turn -= 1

    async def _work(self, message: Message) -> StacworkerError | None:
        """Handle a message; one of those that meet an outage stays in hand and is tried until that is over."""
        error = await self._handle(message)
        if isinstance(error, Unavailable):
            with self.circuit.trial(error) as trial, self._trying(message):
                while trial is not None and isinstance(error, Unavailable) and await trial.turn(error):
                    self.in_flight.enter()
                    error = await self._handle(message)
        return error

    @contextmanager
    def _trying(self, message: Message) -> Iterator[None]:
        self._trials.add(message.id)
        try:
            yield
        finally:
            self._trials.discard(message.id)

    async def _handle(self, message: Message) -> StacworkerError | None:
        """Return None when all that the message asks for is durable, else what went wrong."""
        try:
            await self._consumer.handle(message)
        except StacworkerError as error:
            return error
        except BaseException as error:
            # Only our own cancellation may pass. What else a consumer raises costs its message alone: sys.exit()
            # in a library, a panic in an extension module, a CancelledError of a task that it waited for.
            if isinstance(error, asyncio.CancelledError | GeneratorExit) and _is_cancelled():
                raise
            log.exception("message.unexpected_error")
            return unexpected(error)
        finally:
            self.in_flight.leave()
        return None

    async def _give_back(self, lease: Lease, after_s: float) -> None:
        """Let the message come again. Let go of it first: it may be back before SQS' answer is."""
        self.keeper.drop(lease)
        await self._acks.make_visible(lease, after_s)

    # -- ending --------------------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Stop polling, let what is in hand finish with its leases alive, give back the rest, flush deletes."""
        for poller in list(self._resting):
            poller.cancel()
        self._expect()
        self.circuit.end_trials()
        while (pending := self._pollers | self._messages) and self._lifecycle.remaining_s > 0:
            await asyncio.wait(pending, timeout=self._lifecycle.remaining_s)
        if pending:
            log.warning("drain.deadline", consumer=self.name, messages=len(self._messages))
            for task in pending:
                task.cancel()
            await asyncio.wait(pending, timeout=_RELEASE_TIMEOUT_S)
        try:
            async with asyncio.timeout(_RELEASE_TIMEOUT_S):
                await asyncio.gather(*(self._acks.make_visible(lease, 0) for lease in self._abandoned))
                await self._acks.close()
        except TimeoutError:
            log.warning("drain.unanswered", consumer=self.name)
        log.info("consumer.drained", consumer=self.name, released=self._released_in_drain)

    async def _release_unstarted(self, messages: list[Message]) -> None:
        """Give back what a receive brought after the drain began."""
        unstarted = []
        for message in messages:
            self._slots.give_back(_size_bytes(message))
            lease = self.keeper.get(message.id)
            if lease is not None:
                self.keeper.renew(lease, message)
                self._count_duplicate.inc()
                continue
            self._count_received.inc()
            self._count(Outcome.RELEASED)
            unstarted.append(Lease(message, message.receipt_handle, received_at=0, due_at=0))
        try:
            await asyncio.gather(*(self._acks.make_visible(lease, 0) for lease in unstarted))
        except asyncio.CancelledError:
            self._abandoned += unstarted
            raise

    # -- watching ------------------------------------------------------------------------------------

    def _oldest_age_s(self) -> float:
        oldest = min((lease.message.sent_at for lease in self.keeper.all()), default=None)
        return 0.0 if oldest is None else max(0.0, self._now() - oldest)

    async def _watch_depth(self) -> None:
        while True:
            try:
                for state, count in (await self._queue.depth()).items():
                    self._metrics.queue_messages.labels(self._queue.name, state).set(count)
            except (Unavailable, Permanent) as error:
                log.debug("queue.depth_unknown", queue=self._queue.name, error=error.reason)
            await asyncio.sleep(_DEPTH_EVERY_S)


def _size_bytes(message: Message) -> int:
    return size_bytes(message.body, message.attributes)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _nothing() -> None:
    """Flush nothing: a message that waits for its turn waits for no batch of its own."""
