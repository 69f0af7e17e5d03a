"""Batches per collection: items of many messages go to the catalogue together.

One lane per collection, made when its first item comes and dropped when it is empty and idle, because
anybody who may send messages chooses collection names. A lane loads up to `max_concurrency` batches at a
time, and hands on one more when it is full; what comes meanwhile waits and makes the next batches larger.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Protocol, Self

from stacworker import tracing
from stacworker.errors import Permanent, StacworkerError
from stacworker.inflight import InFlight
from stacworker.load.bisect import Isolated, load_isolating
from stacworker.load.busy import until_free
from stacworker.load.lane import Entry, Lane, Submission
from stacworker.load.pgstac import Loaded
from stacworker.load.prepare import Prepared
from stacworker.load.tasks import Tasks, stopped
from stacworker.metrics import Metrics
from stacworker.settings import CollectionSettings, Conflict, CreateMissing

Rivals = dict[str, list[Entry]]
"""The items of a batch by id, the newest of each id last."""


class Loads(Protocol):
    """What the batcher needs of a catalogue (`load.pgstac.Catalogue`)."""

    async def load(
        self,
        collection: str,
        items: Sequence[Prepared],
        *,
        conflict: Conflict,
        max_concurrency: int,
        create_missing: CreateMissing,
    ) -> Loaded:
        """Commit all items (distinct ids) or none.

        Raises `Busy` when other writers held the collection for too long, `Refused` when some item is
        bad, another `Permanent` when that is true of all, `Transient` and `Unavailable`.
        """


class Batcher:
    """Collects items and loads them in batches; an async context manager.

    Leaving it stops loads that still run and fails what waits, so everybody who submits has to be done
    before. A defect in the batcher itself cancels the task that entered it.
    """

    def __init__(
        self,
        catalogue: Loads,
        settings_for: Callable[[str], CollectionSettings],
        metrics: Metrics,
        *,
        busy_pause_s: float = 0.1,
    ) -> None:
        self._catalogue = catalogue
        self._settings_for = settings_for
        self._metrics = metrics
        self._busy_pause_s = busy_pause_s
        self._lanes: dict[str, Lane] = {}
        self._tasks = Tasks()
        self._stopped = False

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()
        await self._tasks.__aexit__(kind, error, traceback)

    async def submit(self, items: Sequence[Prepared], in_flight: InFlight) -> list[Permanent | None]:
        """Return when every item is settled: None where it is durable, else why it is refused for good.

        Durable means committed, or superseded by a newer version that is. Raises `Transient` or
        `Unavailable` when at least one item has to come again: then none of the others waits or is being
        loaded any more. Cancelled: items that still wait are taken back, batches in the database go on.
        """
        if self._stopped:
            raise stopped()
        if not items:
            return []
        submission = Submission(len(items))
        try:
            lanes = self._spread(items, submission)
            flush = lanes[0].flush if len(lanes) == 1 else self._flush
            with in_flight.waiting(flush):
                await submission.done
        except BaseException:
            submission.withdraw()
            raise
        finally:
            # Entries and submission name each other; without this they stay until the garbage collector runs.
            submission.entries.clear()
        if submission.failure is not None:
            # Many messages raise the same error; its traceback must not grow with each of them.
            raise submission.failure.with_traceback(None)
        return submission.verdicts

    def _spread(self, items: Sequence[Prepared], submission: Submission) -> list[Lane]:
        now = asyncio.get_running_loop().time()
        lanes: dict[str, Lane] = {}
        for index, item in enumerate(items):
            lane = lanes.get(item.collection)
            if lane is None:
                lane = lanes[item.collection] = self._lane(item.collection)
            entry = Entry(item, submission, index, lane, now)
            submission.entries.append(entry)
            lane.add(entry)
        for lane in lanes.values():
            lane.changed()
        return list(lanes.values())

    def _lane(self, collection: str) -> Lane:
        lane = self._lanes.get(collection)
        if lane is None:
            gauge = self._metrics.buffered_items.labels(self._metrics.collection_label(collection))
            lane = Lane(collection, self._settings_for(collection), gauge, self._pump)
            self._lanes[collection] = lane
        return lane

    def _flush(self) -> None:
        for lane in list(self._lanes.values()):
            lane.flush()

    def _pump(self, lane: Lane) -> None:
        """Start what may start in a lane, and drop the lane when there is nothing left of it."""
        while not self._stopped and lane.ready:
            # A full batch gains nothing by waiting: the catalogue makes its rows while the one before it loads.
            if lane.loading >= lane.settings.max_concurrency + lane.full:
                break
            self._start(lane)
        if lane.idle and self._lanes.get(lane.collection) is lane:
            del self._lanes[lane.collection]

    def _start(self, lane: Lane) -> None:
        batch = lane.take()
        rivals = _rivals(batch)
        label = self._metrics.collection_label(lane.collection)
        self._metrics.batch_wait.labels(label).observe(asyncio.get_running_loop().time() - batch[0].added_at)
        self._metrics.batch_items.labels(label).observe(len(rivals))
        lane.loading += 1
        # What is left in `rivals` at the end was not settled: the load was stopped.
        self._tasks.start(self._run(lane, rivals), at_end=lambda: _fail(_all(rivals), stopped()))

    async def _run(self, lane: Lane, rivals: Rivals) -> None:
        try:
            await self._load(lane, rivals)
        except BaseException:
            # Cancelled at the end, or a defect of ours: either way nothing more is loaded.
            self._stop()
            raise
        lane.loading -= 1
        lane.changed()

    async def _load(self, lane: Lane, rivals: Rivals) -> None:
        label = self._metrics.collection_label(lane.collection)

        async def load(items: Sequence[Prepared]) -> Loaded:
            return await until_free(
                lane.collection,
                lambda: self._catalogue.load(
                    lane.collection,
                    items,
                    conflict=lane.settings.conflict,
                    max_concurrency=lane.settings.max_concurrency,
                    create_missing=lane.settings.create_missing,
                ),
                wanted=lambda: any(entry.wanted for entry in _all(rivals)),
                pause_s=self._busy_pause_s,
            )

        # A refused item must not cost the next newest of its id, so that one is tried after it.
        with tracing.span(
            f"load {lane.collection}",
            kind="client",
            links=(entry.submission.trace for entry in _all(rivals)),
            db__system__name="postgresql",
            db__operation__batch__size=len(rivals),
            stacworker__collection=lane.collection,
        ) as span:
            while rivals:
                found = await load_isolating(load, [entries[-1].item for entries in rivals.values()])
                self._metrics.batch_bisections.labels(label).inc(found.splits)
                tracing.tell(span, found.failure or next(iter(found.errors.values()), None))
                self._settle(label, rivals, found)

    def _settle(self, label: str, rivals: Rivals, found: Isolated) -> None:
        """Tell each submission what became of its items; leave in `rivals` what has to be tried next."""
        superseded = 0
        rejected: Counter[str] = Counter()
        for item_id, entries in list(rivals.items()):
            error = _error(item_id, found, entries[-1].item)
            if isinstance(error, Permanent):
                newest = entries.pop()
                newest.submission.settle(newest.index, _verdict(error, newest.item))
                rejected[error.error_class] += 1
                if entries:
                    continue
            elif error is not None:
                _fail(entries, error)
            else:
                tied = [entry for entry in entries if _is_tied(entry.item, entries[-1].item)]
                superseded += len(entries) - len(tied) - (item_id in found.loaded)
                for entry in entries:
                    if entry not in tied:
                        entry.submission.settle(entry.index, None)
                if tied:
                    rivals[item_id] = tied
                    continue
            del rivals[item_id]
        self._metrics.items_loaded.labels(label).inc(len(found.loaded))
        self._metrics.items_superseded.labels(label).inc(superseded)
        for error_class, count in rejected.items():
            self._metrics.items_rejected.labels(label, error_class).inc(count)

    def _stop(self) -> None:
        self._stopped = True
        for lane in list(self._lanes.values()):
            lane.stop_timer()
            _fail(lane.drain(), stopped())
        self._lanes.clear()


def _rivals(batch: Iterable[Entry]) -> Rivals:
    rivals: Rivals = {}
    for entry in batch:
        rivals.setdefault(entry.item.id, []).append(entry)
    for entries in rivals.values():
        if len(entries) > 1:
            entries.sort(key=_age)
    return rivals


def _age(entry: Entry) -> tuple[object, ...]:
    return _age_of(entry.item)


def _age_of(item: Prepared) -> tuple[object, ...]:
    return item.version, item.datetime, item.end_datetime


def _is_tied(item: Prepared, newest: Prepared) -> bool:
    """Tell whether only the content decides between two items: the catalogue does, so each has to be put to it."""
    return item is not newest and _age_of(item) == _age_of(newest) and item.body != newest.body


def _error(item_id: str, found: Isolated, item: Prepared) -> StacworkerError | None:
    if item_id in found.errors:
        return found.errors[item_id]
    if item_id in found.conflicting:
        return Permanent(
            f"item {item_id!r} exists already in collection {item.collection!r}, which is set to conflict: error; "
            "set upsert to replace it or ignore to keep it",
            error_class="conflict",
        )
    if item_id in found.loaded or item_id in found.superseded:
        return None
    return found.failure


def _verdict(error: Permanent, item: Prepared) -> Permanent:
    """Return the error with the names of one item: one error may be the answer for many."""
    told = Permanent(
        f"{error.reason} ({item.origin})",
        error_class=error.error_class,
        collection=item.collection,
        item_id=item.id,
    )
    told.__cause__ = error
    return told


def _all(rivals: Rivals) -> list[Entry]:
    return [entry for entries in rivals.values() for entry in entries]


def _fail(entries: Iterable[Entry], error: StacworkerError) -> None:
    for entry in entries:
        entry.submission.fail(error)
