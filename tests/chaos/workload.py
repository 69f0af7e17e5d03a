"""What a round sends, drawn from a seed, and what must come of it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from urllib.parse import quote_plus

Key = tuple[str, str]
"""Collection and id of an item."""

UNPARTITIONED = "plain"
COLLECTIONS = {"monthly": "month", "yearly": "year", UNPARTITIONED: None}
"""The collections of a round, and how each is partitioned."""
MISSING_COLLECTION = "nowhere"
FIRST_EVENT = datetime(2024, 6, 1, tzinfo=UTC)
_SOON = 15
_FIRST_DAY = datetime(2023, 7, 1, 12, tzinfo=UTC)
"""Items are of the 360 days from here: of twelve months, of two years."""


@dataclass(frozen=True, slots=True)
class Copy:
    """One version of an item, as it is sent.

    `version` is the envelope's time in ms and a sequencer; where there is no envelope, a number that grows from
    copy to copy as SQS' sent time does.
    """

    collection: str
    id: str
    rev: str
    datetime: str
    version: tuple[int, str] = (0, "")

    @property
    def key(self) -> Key:
        """Which item this is a version of."""
        return self.collection, self.id

    @property
    def age(self) -> tuple[object, ...]:
        """What orders the copies of an item: version, then time, then content as the database orders JSON."""
        return self.version, self.datetime, self.longitude, self.rev

    @property
    def longitude(self) -> float:
        """A coordinate that differs from revision to revision."""
        return round(sum(map(ord, self.rev)) % 3600 / 20 - 90, 2)

    def body(self) -> dict[str, Any]:
        """Return the STAC item."""
        longitude = self.longitude
        return {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": self.id,
            "collection": self.collection,
            "geometry": {"type": "Point", "coordinates": [longitude, 50.0]},
            "bbox": [longitude, 50.0, longitude, 50.0],
            "properties": {"datetime": self.datetime, "rev": self.rev, "note": "arn:aws:s3:::no-event aws:s3"},
            "links": [],
            "assets": {"data": {"href": f"s3://granules/{self.id}.tif", "type": "image/tiff"}},
        }


@dataclass(frozen=True, slots=True)
class Parcel:
    """One message: the items it carries, and a mark for each dead letter that it must leave.

    `objects` are put in the bucket before the message is sent. `queue` names one of the round's queues.
    """

    body: str
    copies: tuple[Copy, ...] = ()
    marks: tuple[str, ...] = ()
    objects: tuple[tuple[str, bytes], ...] = ()
    queue: str = "items"
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """All messages of a round, in the order of sending."""

    parcels: tuple[Parcel, ...]

    @property
    def winners(self) -> dict[Key, Copy]:
        """The version of each item that has to be in the catalogue in the end."""
        found: dict[Key, Copy] = {}
        for copy in self.copies():
            if copy.key not in found or found[copy.key].age < copy.age:
                found[copy.key] = copy
        return found

    @property
    def marks(self) -> frozenset[str]:
        """The marks of the dead letters that have to be there in the end."""
        return frozenset(mark for parcel in self.parcels for mark in parcel.marks)

    def copies(self) -> Iterator[Copy]:
        """Yield every version of every item."""
        for parcel in self.parcels:
            yield from parcel.copies


@dataclass(slots=True)
class Maker:
    """Draws parcels. `bucket` is where their objects are put."""

    random: Random
    bucket: str
    state: str = ""
    _count: int = 0
    _events: int = 0
    _parcels: list[Parcel] = field(default_factory=list)
    _races: list[tuple[Parcel, Parcel, Parcel]] = field(default_factory=list)

    def workload(self) -> Workload:
        """Return what was made, shuffled; about one message in twenty is sent twice."""
        again = self.random.sample(self._parcels, len(self._parcels) // 20)
        parcels = [*self._parcels, *again]
        self.random.shuffle(parcels)
        for first, last, middle in self._races:
            parcels.insert(self.random.randrange(len(parcels) // 2), first)
            at = self.random.randrange(len(parcels) // 2, len(parcels))
            parcels.insert(at, last)
            parcels.insert(at + self.random.randint(1, _SOON), middle)
        return Workload(tuple(parcels))

    # -- items ---------------------------------------------------------------------------------------

    def singles(self, count: int) -> None:
        """Add messages that are one item each."""
        for copy in self._copies(count):
            self._parcels.append(Parcel(json.dumps(copy.body()), (copy,)))

    def bundles(self, count: int, items: int) -> None:
        """Add SNS notifications of one FeatureCollection each."""
        for _ in range(count):
            self._bundle(self._copies(items))

    def objects(self, count: int, items: int) -> None:
        """Add S3 events, each of an object with many items in lines, half of them compressed."""
        for number in range(count):
            copies = self._copies(items)
            lines = b"\n".join(json.dumps(copy.body()).encode() for copy in copies)
            zipped = number % 2 == 1
            key = f"in box/{self._next('part')}.ndjson{'.gz' if zipped else ''}"
            data = gzip.compress(lines, 1, mtime=0) if zipped else lines
            self._event(key, data, copies)

    def moving(self, items: int, versions: int, ties: int) -> None:
        """Add versions of the same items whose times lie in other months; `ties` items have two of one version."""
        latest = [copy for _ in range(items) for copy in self._copies(1)]
        for _ in range(versions):
            chosen = self.random.sample(latest, max(1, items * 3 // 4))
            self._bundle([self._moved(copy) for copy in chosen])
        self._bundle([self._moved(copy) for copy in latest])
        moment = self._moment()
        for part in (latest[:ties], latest[:ties]):
            self._bundle([self._moved(copy) for copy in part], moment)

    def racing(self, groups: int, items: int) -> None:
        """Add items whose newest version meets the one before it, where two writers are let in at a time."""
        for _ in range(groups):
            copies = [replace(copy, collection=UNPARTITIONED) for copy in self._copies(items)]
            for _ in range(3):
                copies = [self._moved(copy) for copy in copies]
                self._bundle(copies)
            first, middle, last = self._parcels[-3:]
            del self._parcels[-3:]
            self._races.append((first, last, middle))

    def bad(self, count: int) -> None:
        """Add messages that must leave dead letters, among them good items beside bad ones."""
        for number in range(count):
            mark = self._next("bad")
            if number % 4 == 0:
                good = self._copies(8)
                bodies = [copy.body() for copy in good]
                bodies.insert(self.random.randrange(8), {**bodies[0], "id": mark, "geometry": None})
                moment = self._moment()
                good = _versioned(good, moment)
                self._parcels.append(Parcel(_sns(_collection(bodies), moment), tuple(good), (mark,)))
            elif number % 4 == 1:
                self._parcels.append(Parcel(f"{mark} {{ is not JSON", (), (mark,)))
            elif number % 4 == 2:
                event = _s3_event(self.bucket, f"gone/{mark}.json", self._moment(), "0A")
                self._parcels.append(Parcel(event, (), (mark,)))
            else:
                (copy,) = self._copies(1)
                body = {**copy.body(), "id": mark, "collection": MISSING_COLLECTION}
                self._parcels.append(Parcel(json.dumps(body), (), (mark,)))

    def ordered(self, groups: int, versions: int) -> Workload:
        """Return a workload for a FIFO queue: each group's items in versions whose order of sending counts."""
        lanes = [self._copies(5) for _ in range(groups)]
        parcels = []
        for version in range(versions):
            for number, copies in enumerate(lanes):
                ordered = [replace(self._moved(copy), version=(version, "")) for copy in copies]
                body = json.dumps(_collection([copy.body() for copy in ordered]))
                parcels.append(Parcel(body, tuple(ordered), group=f"group-{number}"))
        return Workload(tuple(parcels))

    def requests(self, count: int, troubles: Sequence[str]) -> None:
        """Add requests for the generator of `generator.py`; some get into one of `troubles`, once or always."""
        for number in range(count):
            copies = self._copies(3)
            request: dict[str, Any] = {"id": self._next("request"), "path": "made/on/request"}
            request["items"] = [copy.body() for copy in copies]
            marks: tuple[str, ...] = ()
            if troubles and number % 5 == 0:
                request |= {"trouble": troubles[number // 5 % len(troubles)], "once_in": self.state}
                if number % 15 == 0:
                    request |= {"once_in": None, "mark": (mark := self._next("bad"))}
                    if request["trouble"] != "print":
                        marks, copies = (mark,), []
            self._parcels.append(Parcel(json.dumps(request), tuple(copies), marks, queue="requests"))

    # -- parts ---------------------------------------------------------------------------------------

    def _next(self, what: str) -> str:
        self._count += 1
        return f"{what}-{self._count:06}"

    def _copies(self, count: int) -> list[Copy]:
        collection = self.random.choice(list(COLLECTIONS))
        return [
            Copy(collection, self._next("item"), self._next("rev"), _day(self.random.randrange(360)))
            for _ in range(count)
        ]

    def _moved(self, copy: Copy) -> Copy:
        return replace(copy, rev=self._next("rev"), datetime=_day(self.random.randrange(360)))

    def _moment(self) -> datetime:
        self._events += 1
        return FIRST_EVENT + timedelta(milliseconds=self._events)

    def _bundle(self, copies: Sequence[Copy], moment: datetime | None = None) -> None:
        moment = moment or self._moment()
        body = _sns(_collection([copy.body() for copy in copies]), moment)
        self._parcels.append(Parcel(body, tuple(_versioned(copies, moment))))

    def _event(self, key: str, data: bytes, copies: Sequence[Copy]) -> None:
        moment = self._moment()
        body = _s3_event(self.bucket, key, moment, f"{self._events:016X}")
        copies = _versioned(copies, moment, f"{self._events:032X}")
        self._parcels.append(Parcel(body, tuple(copies), objects=((key, data),)))


def _versioned(copies: Iterable[Copy], moment: datetime, sequencer: str = "") -> list[Copy]:
    version = (round(moment.timestamp() * 1000), sequencer)
    return [replace(copy, version=version) for copy in copies]


def _day(number: int) -> str:
    return f"{_FIRST_DAY + timedelta(days=number):%Y-%m-%dT%H:%M:%SZ}"


def _collection(bodies: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": bodies}


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _sns(body: dict[str, Any], moment: datetime) -> str:
    """Return what SNS writes to a queue around a message."""
    return json.dumps(
        {
            "Type": "Notification",
            "MessageId": "5f3f7a0e-0000-4000-8000-000000000000",
            "TopicArn": "arn:aws:sns:us-east-1:000000000000:items",
            "Message": json.dumps(body),
            "Timestamp": _time(moment),
        }
    )


def _s3_event(bucket: str, key: str, moment: datetime, sequencer: str) -> str:
    record = {
        "eventSource": "aws:s3",
        "eventName": "ObjectCreated:Put",
        "eventTime": _time(moment),
        "s3": {"bucket": {"name": bucket}, "object": {"key": quote_plus(key, safe="/"), "sequencer": sequencer}},
    }
    return json.dumps({"Records": [record]})
