"""Leases: our hold on each message, extended for as long as the message is in hand.

One loop per queue over leases in the order in which they are due. Because every lease lasts equally long,
that is the order in which they were taken or last extended: an extended lease goes to the end of the line.
The few whose extension failed, or was cut short by SQS' limit, wait beside the line.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from itertools import islice, takewhile

import structlog

from stacworker.api import Message
from stacworker.consume.queue import Queue
from stacworker.consume.sqs import BATCH, Failure
from stacworker.errors import Permanent, Unavailable
from stacworker.metrics import Metrics

log = structlog.get_logger()

MAX_HOLD_S = 43_200.0
"""SQS lets nobody hold a message longer than 12 hours from its receipt."""


@dataclass(slots=True, eq=False)
class Lease:
    """Our hold on one message. Times are monotonic seconds."""

    message: Message
    handle: str
    received_at: float
    due_at: float
    lost: bool = False


class LeaseKeeper:
    """Extends the leases of one queue's messages in batches of 10, at half their time."""

    def __init__(
        self,
        queue: Queue,
        *,
        visibility_timeout_s: float,
        metrics: Metrics,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue
        self._timeout_s = visibility_timeout_s
        self._monotonic = monotonic
        self._leases: dict[str, Lease] = {}
        self._line: dict[str, Lease] = {}
        self._beside: dict[str, Lease] = {}
        self._added = asyncio.Event()
        self._extensions = {
            outcome: metrics.visibility_extensions.labels(queue.name, outcome) for outcome in ("ok", "failed", "lost")
        }
        self._ownership_lost = metrics.ownership_lost.labels(queue.name)
        self.beat_at = monotonic()

    def get(self, message_id: str) -> Lease | None:
        """Return the lease of a message in hand."""
        return self._leases.get(message_id)

    def all(self) -> Iterable[Lease]:
        """Return the leases of all messages in hand."""
        return self._leases.values()

    def longest_held_s(self, *, besides: Container[str]) -> float:
        """Return the seconds since the receipt of the message in hand longest, but for these ids; 0 with none."""
        now = self._monotonic()
        held = (now - lease.received_at for id_, lease in self._leases.items() if id_ not in besides)
        return max(held, default=0.0)

    def add(self, message: Message) -> Lease:
        """Take hold of a message that was just received."""
        now = self._monotonic()
        lease = Lease(message, message.receipt_handle, received_at=now, due_at=now + self._timeout_s / 2)
        self._leases[message.id] = self._line[message.id] = lease
        self._added.set()
        return lease

    def renew(self, lease: Lease, message: Message) -> None:
        """Take over the newer delivery of a message in hand: its receipt handle, and how often it was received."""
        lease.message = message
        lease.handle = message.receipt_handle
        lease.lost = False
        self._requeue(lease, self._timeout_s / 2)

    def drop(self, lease: Lease) -> None:
        """Let go of a message: it has its outcome. The lease of a later delivery is left alone."""
        if self._leases.get(lease.message.id) is not lease:
            return
        for leases in (self._leases, self._line, self._beside):
            leases.pop(lease.message.id, None)

    async def run(self) -> None:
        """Extend leases until cancelled. Never gives up on an error: an extension is tried again."""
        while True:
            self.beat_at = self._monotonic()
            due = self._take_due()
            if due:
                await asyncio.gather(*(self._extend(due[n : n + BATCH]) for n in range(0, len(due), BATCH)))
            else:
                await self._sleep_until_due()

    async def _sleep_until_due(self) -> None:
        self._added.clear()
        waiting = [*islice(self._line.values(), 1), *self._beside.values()]
        wait_s = min((lease.due_at - self._monotonic() for lease in waiting), default=self._timeout_s)
        if waiting:
            await asyncio.sleep(min(max(wait_s, 0.0), self._timeout_s / 4))
            return
        try:
            async with asyncio.timeout(self._timeout_s / 4):
                await self._added.wait()
        except TimeoutError:
            pass

    def _take_due(self) -> list[Lease]:
        """Return what is due, with what is due soon after (so that calls carry full batches)."""
        now = self._monotonic()
        due = [lease for lease in self._beside.values() if lease.due_at <= now]
        if self._line and next(iter(self._line.values())).due_at <= now:
            due += takewhile(lambda lease: lease.due_at <= now + self._timeout_s / 10, self._line.values())
        return due

    async def _extend(self, leases: list[Lease]) -> None:
        now = self._monotonic()
        live: dict[str, tuple[str, float]] = {}
        for lease in leases:
            left_s = lease.received_at + MAX_HOLD_S - now
            if left_s <= 1:
                self._lose(lease, "held for 12 hours")
            else:
                live[lease.message.id] = (lease.handle, min(self._timeout_s, left_s))
        if not live:
            return
        failed: dict[str, Failure] = {}
        try:
            async with asyncio.timeout(max(1.0, self._timeout_s / 4)):
                failed = await self._queue.change_visibility(live)
        except (Unavailable, Permanent, TimeoutError) as error:
            why = str(error) or "no answer in time"
            log.warning("lease.extension_failed", queue=self._queue.name, leases=len(live), error=why)
            failed = dict.fromkeys(live, Failure("Call", why, lost=False))
        for lease in leases:
            if lease.message.id not in live or self._leases.get(lease.message.id) is not lease:
                continue
            failure = failed.get(lease.message.id)
            handle, timeout_s = live[lease.message.id]
            if failure is None:
                self._extensions["ok"].inc()
                self._requeue(lease, timeout_s / 2, beside=timeout_s < self._timeout_s)
            elif failure.lost and lease.handle == handle:
                self._extensions["lost"].inc()
                self._lose(lease, f"{failure.code}: {failure.message}")
            else:
                self._extensions["failed"].inc()
                self._requeue(lease, self._timeout_s / 20, beside=True)

    def _lose(self, lease: Lease, why: str) -> None:
        """Stop extending; the work goes on, because loading the same item twice is harmless."""
        self._line.pop(lease.message.id, None)
        self._beside.pop(lease.message.id, None)
        lease.lost = True
        self._ownership_lost.inc()
        log.warning("lease.lost", queue=self._queue.name, message_id=lease.message.id, why=why)

    def _requeue(self, lease: Lease, after_s: float, *, beside: bool = False) -> None:
        id_ = lease.message.id
        self._line.pop(id_, None)
        self._beside.pop(id_, None)
        lease.due_at = self._monotonic() + after_s
        (self._beside if beside else self._line)[id_] = lease
