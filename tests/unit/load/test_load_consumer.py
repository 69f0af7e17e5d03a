"""The load consumer: what a message holds reaches the sink, and its end is told truly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from stacworker.api import Document, Message, Version
from stacworker.envelope.forms import S3Location
from stacworker.envelope.reader import Reader
from stacworker.errors import Permanent, Refusal, Rejected, Transient, Unavailable
from stacworker.inflight import InFlight
from stacworker.load.consumer import LoadConsumer
from stacworker.load.refusals import raise_refused
from stacworker.settings import DeletesSettings
from tests.unit.load.documents import item_body

TIME_MS = 1_600_000_000_000
DELETES = DeletesSettings(enabled=True)


@dataclass
class Objects:
    """S3 in memory."""

    held: dict[str, bytes] = field(default_factory=dict)
    away: Unavailable | None = None
    max_concurrency: int = 8

    async def get(self, location: S3Location) -> bytes:
        return self.held[str(location)]

    async def ping(self) -> None:
        if self.away is not None:
            raise self.away


@dataclass
class Sink:
    """Takes documents, refuses those that are called bad."""

    put_: list[Document] = field(default_factory=list)
    seen: list[InFlight] = field(default_factory=list)
    failure: Exception | None = None

    async def put(self, documents: Sequence[Document], in_flight: InFlight) -> None:
        self.seen.append(in_flight)
        if self.failure is not None:
            raise self.failure
        bad = [document for document in documents if "bad" in document.body["id"]]
        self.put_ += [document for document in documents if document not in bad]
        raise_refused(
            [(document, Permanent("bad item", item_id=document.body["id"])) for document in bad], of=len(documents)
        )

    async def ping(self) -> None:
        if self.failure is not None:
            raise self.failure


def message(body: Any) -> Message:
    text = body if isinstance(body, str) else orjson.dumps(body).decode()
    return Message(id="m", body=text, receipt_handle="r", receive_count=1, sent_at=TIME_MS / 1000)


def record(key: str, event: str = "ObjectCreated:Put") -> dict[str, Any]:
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "eventTime": "2020-09-13T12:26:40.000Z",
        "eventName": event,
        "s3": {"bucket": {"name": "b"}, "object": {"key": key, "sequencer": "0A"}},
    }


def consumer(sink: Sink, objects: Objects | None = None, deletes: DeletesSettings | None = None) -> LoadConsumer:
    return LoadConsumer(reader=Reader(objects or Objects()), sink=sink, deletes=deletes or DeletesSettings())


async def refusals(of: LoadConsumer, body: Any) -> tuple[Refusal, ...]:
    with pytest.raises(Rejected) as raised:
        await of.handle(message(body))
    return raised.value.refusals


async def test_an_item_is_put_with_the_message_s_own_count() -> None:
    """The sink gets the document and the queue's InFlight, by which batches know when to go."""
    sink, body = Sink(), item_body()
    given = message(body)
    await consumer(sink).handle(given)
    assert sink.put_ == [Document("item", body, Version(TIME_MS))]
    assert sink.seen == [given.in_flight]


async def test_objects_are_fetched_and_put_together() -> None:
    """An event of several objects is one put."""
    objects = Objects({f"s3://b/{key}.json": orjson.dumps(item_body(key)) for key in "xy"})
    sink = Sink()
    await consumer(sink, objects).handle(message({"Records": [record("x.json"), record("y.json")]}))
    assert [(d.body["id"], d.origin) for d in sink.put_] == [("x", "s3://b/x.json"), ("y", "s3://b/y.json")]
    assert len(sink.seen) == 1


async def test_a_test_event_is_acknowledged() -> None:
    """What asks for nothing ends well and reaches no sink."""
    sink = Sink()
    await consumer(sink).handle(message({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}))
    assert sink.seen == []


async def test_unreadable_messages_are_permanent() -> None:
    """A body that is nothing known goes to the dead-letter queue as it is."""
    with pytest.raises(Permanent) as raised:
        await consumer(Sink()).handle(message("hello world"))
    assert not isinstance(raised.value, Rejected)


async def test_the_only_item_s_refusal_leaves_the_body_as_it_is() -> None:
    """A message that holds one thing, which is bad, is bad as a whole."""
    with pytest.raises(Permanent) as raised:
        await consumer(Sink()).handle(message(item_body("bad")))
    assert not isinstance(raised.value, Rejected)
    assert (raised.value.reason, raised.value.item_id) == ("bad item", "bad")


async def test_bad_items_of_many_are_refused_alone() -> None:
    """Good ones are put; each bad one has its own body, whoever refused it."""
    sink = Sink()
    bad = item_body("bad")
    features = [item_body("x"), bad, "no feature", item_body("y")]
    found = await refusals(consumer(sink), {"type": "FeatureCollection", "features": features})
    assert [refusal.body for refusal in found] == ['"no feature"', orjson.dumps(bad).decode()]
    assert [document.body["id"] for document in sink.put_] == ["x", "y"]


async def test_the_only_readable_item_of_a_message_is_refused_alone() -> None:
    """That the sink saw one document does not make the whole message's body stand for it."""
    bad = item_body("bad")
    found = await refusals(consumer(Sink()), {"type": "FeatureCollection", "features": [1, bad]})
    assert [refusal.body for refusal in found] == ["1", orjson.dumps(bad).decode()]


@pytest.mark.parametrize("failure", [Transient("deadlock"), Unavailable("gone", dependency="database")])
async def test_failures_come_before_refusals(failure: Transient | Unavailable) -> None:
    """While anything may yet succeed the whole message comes again."""
    with pytest.raises(type(failure)) as raised:
        await consumer(Sink(failure=failure)).handle(
            message({"type": "FeatureCollection", "features": [item_body("x"), 1]})
        )
    assert raised.value is failure


async def test_removed_objects_are_ignored_unless_deletes_are_on() -> None:
    """By default an ObjectRemoved event is acknowledged and deletes nothing."""
    sink = Sink()
    with capture_logs() as logs:
        await consumer(sink).handle(message({"Records": [record("c/x.json", "ObjectRemoved:Delete")]}))
    assert sink.seen == []
    assert logs == [{"event": "delete.ignored", "log_level": "debug", "origin": "s3://b/c/x.json"}]


@pytest.mark.parametrize(
    ("key", "ids"),
    [
        ("c/x.json", {"collection": "c", "id": "x"}),
        ("some/where/c/x.geojson", {"collection": "c", "id": "x"}),
        ("c/a%252Fb.json", {"collection": "c", "id": "a/b"}),
    ],
)
async def test_a_removed_object_deletes_its_item(key: str, ids: dict[str, str]) -> None:
    """The key says which item; what S3Sink encoded is decoded."""
    sink = Sink()
    await consumer(sink, deletes=DELETES).handle(message({"Records": [record(key, "ObjectRemoved:Delete")]}))
    assert [(d.kind, d.body, d.version.time_ms) for d in sink.put_] == [("delete", ids, TIME_MS)]


async def test_a_removed_object_whose_key_tells_no_item_is_permanent() -> None:
    """The reason names the object and the setting."""
    with pytest.raises(Permanent) as raised:
        await consumer(Sink(), deletes=DELETES).handle(message({"Records": [record("x", "ObjectRemoved:Delete")]}))
    assert (raised.value.error_class, raised.value.reason) == (
        "delete_key",
        (
            "s3://b/x was removed, but its key does not tell which item that is: deletes.key_pattern "
            rf"{DELETES.key_pattern!r} does not match it"
        ),
    )


async def test_a_name_that_no_item_can_have_costs_no_other_delete() -> None:
    """The database would refuse the statement for all of them."""
    sink = Sink()
    records = [record(key, "ObjectRemoved:Delete") for key in ("c/%2500.json", "c/x.json")]
    with pytest.raises(Rejected) as raised:
        await consumer(sink, deletes=DELETES).handle(message({"Records": records}))
    assert [document.body for document in sink.put_] == [{"collection": "c", "id": "x"}]
    assert [(r.error.error_class, r.error.reason, r.body) for r in raised.value.refusals] == [
        (
            "delete_key",
            "s3://b/c/%00.json was removed, but its key holds a NUL character, which no item's name does",
            None,
        )
    ]


async def test_a_flood_of_bad_items_is_one_dead_letter() -> None:
    """Where all of an object's items are refused, the event that named it can be sent again."""
    bad = item_body("bad")
    many = {"type": "FeatureCollection", "features": [bad] * 1001}
    (refusal,) = await refusals(consumer(Sink()), many)
    assert (refusal.error.reason, refusal.body) == ("1001 parts are bad and kept together; the first: bad item", None)


async def test_a_pattern_may_not_match_nothing() -> None:
    """A group that took part in no match names no item."""
    deletes = DeletesSettings(enabled=True, key_pattern=r"(?P<collection>c)?(?P<id>.*)")
    with pytest.raises(Permanent, match="does not tell which item"):
        await consumer(Sink(), deletes=deletes).handle(message({"Records": [record("x", "ObjectRemoved:Delete")]}))


async def test_deletes_and_items_of_one_event_are_put_together() -> None:
    """A bad key costs neither the delete nor the item beside it."""
    objects = Objects({"s3://b/c/y.json": orjson.dumps(item_body("y"))})
    sink = Sink()
    records = [record("c/x.json", "ObjectRemoved:Delete"), record("c/y.json"), record("z", "ObjectRemoved:Delete")]
    (refusal,) = await refusals(consumer(sink, objects, DELETES), {"Records": records})
    assert (refusal.error.error_class, refusal.body) == ("delete_key", None)
    assert [(document.kind, document.body["id"]) for document in sink.put_] == [("item", "y"), ("delete", "x")]


async def test_ping_asks_for_objects_and_the_sink() -> None:
    """Either being away makes the consumer unavailable."""
    await consumer(Sink()).ping()
    away = Unavailable("gone", dependency="s3")
    for broken in (consumer(Sink(failure=away)), consumer(Sink(), Objects(away=away))):
        with pytest.raises(Unavailable):
            await broken.ping()
