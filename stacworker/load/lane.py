"""What waits to be loaded in one collection, and when a batch of it goes."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import Gauge

from stacworker import tracing
from stacworker.errors import Permanent, StacworkerError
from stacworker.load.prepare import Prepared
from stacworker.settings import CollectionSettings


class Submission:
    """The items that one message submitted together.

    `done` is set when each item is settled: loaded, refused, failed, or taken back. `verdicts` stand in
    the order of the items; `failure` is the first error after which the message has to come again.
    """

    def __init__(self, size: int) -> None:
        self.verdicts: list[Permanent | None] = [None] * size
        self.failure: StacworkerError | None = None
        self.entries: list[Entry] = []
        self.done = asyncio.get_running_loop().create_future()
        self.trace = tracing.here()
        self.left = size

    def settle(self, index: int, verdict: Permanent | None) -> None:
        """Note that an item is in the catalogue (None) or refused for good."""
        self.verdicts[index] = verdict
        self._count(1)

    def fail(self, error: StacworkerError) -> None:
        """Note that an item has to come again; what has not started is not started any more."""
        if self.failure is None:
            self.failure = error
            self.withdraw()
        self._count(1)

    def withdraw(self) -> None:
        """Take back the items that still wait; those being loaded go on."""
        lanes = {entry.lane for entry in self.entries}
        self._count(sum(entry.lane.discard(entry) for entry in self.entries))
        for lane in lanes:
            lane.changed()

    def _count(self, settled: int) -> None:
        self.left -= settled
        if not self.left and not self.done.done():
            self.done.set_result(None)


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One item on its way: whose it is, and since when it waits (`added_at`, the loop's time in s)."""

    item: Prepared
    submission: Submission
    index: int
    lane: Lane
    added_at: float

    @property
    def wanted(self) -> bool:
        """False when whoever submitted the item has left, or has to submit it again anyway."""
        return self.submission.failure is None and not self.submission.done.cancelled()


class Lane:
    """The waiting items of one collection, oldest first.

    A batch is ready when it is full, when its oldest item has waited long enough, or when that item
    waited already at the last `flush`. `changed` tells the owner to look again; `loading` is the
    number of its batches in the database, kept by the owner.
    """

    def __init__(
        self, collection: str, settings: CollectionSettings, gauge: Gauge, on_change: Callable[[Lane], None]
    ) -> None:
        self.collection = collection
        self.settings = settings
        self.loading = 0
        self._gauge = gauge
        self._on_change = on_change
        # Not a dict: taking the first of many from a dict walks over all that were taken before.
        self._waiting: OrderedDict[Entry, None] = OrderedDict()
        self._bytes = 0
        self._counted = 0
        self._flushed_at = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        self._timed: Entry | None = None

    @property
    def idle(self) -> bool:
        """True when nothing waits and nothing is being loaded."""
        return not self._waiting and not self.loading

    @property
    def full(self) -> bool:
        """True when waiting longer would not make the next batch larger."""
        return len(self._waiting) >= self.settings.max_batch_items or self._bytes >= self.settings.max_batch_bytes

    @property
    def ready(self) -> bool:
        """True when a batch may go."""
        return self.full or (bool(self._waiting) and self._oldest.added_at <= self._flushed_at)

    @property
    def _oldest(self) -> Entry:
        return next(iter(self._waiting))

    def add(self, entry: Entry) -> None:
        """Let an item wait; the caller says `changed` after the last one."""
        self._waiting[entry] = None
        self._bytes += entry.item.size

    def discard(self, entry: Entry) -> bool:
        """Take an item back if it still waits, and say whether it did; `changed` comes after the last one."""
        if entry not in self._waiting:
            return False
        del self._waiting[entry]
        self._bytes -= entry.item.size
        return True

    def take(self) -> list[Entry]:
        """Remove and return the oldest items, as many as one batch may hold: at least one."""
        batch: list[Entry] = []
        room_bytes = int(self.settings.max_batch_bytes)
        while self._waiting and len(batch) < self.settings.max_batch_items:
            entry = self._oldest
            room_bytes -= entry.item.size
            if batch and room_bytes < 0:
                break
            self.discard(entry)
            batch.append(entry)
        return batch

    def flush(self) -> None:
        """Let everything that waits now go as soon as there is a slot."""
        self._flushed_at = asyncio.get_running_loop().time()
        self.changed()

    def changed(self) -> None:
        """Let the owner look whether a batch may go, and set the timer for the oldest item."""
        self._on_change(self)
        self._count()
        oldest = self._oldest if self._waiting else None
        if oldest is self._timed:
            return
        self.stop_timer()
        if oldest is not None:
            self._timed = oldest
            due_at = oldest.added_at + self.settings.max_batch_wait_s
            self._timer = asyncio.get_running_loop().call_at(due_at, self._on_time, oldest)

    def _on_time(self, oldest: Entry) -> None:
        # The item's own time, not the clock's: a timer may fire a clock tick early.
        self._flushed_at = max(self._flushed_at, oldest.added_at)
        self.changed()

    def stop_timer(self) -> None:
        """Forget the timer (the owner, at the end)."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._timed = None

    def drain(self) -> list[Entry]:
        """Remove and return all that waits (the owner, at the end)."""
        entries = list(self._waiting)
        for entry in entries:
            self.discard(entry)
        self._count()
        return entries

    def _count(self) -> None:
        self._gauge.inc(len(self._waiting) - self._counted)
        self._counted = len(self._waiting)
