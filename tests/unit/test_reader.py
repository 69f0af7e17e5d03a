"""From messages to documents and requests, with objects from a fake store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson
import pytest

from stacworker.api import Document, Message, Request, Version
from stacworker.envelope.forms import S3Location, S3Removed
from stacworker.envelope.reader import MAX_REFUSED_PARTS, Read, Reader, Requests
from stacworker.errors import Permanent, Refusal, Rejected, Transient, Unavailable
from stacworker.testing.s3 import FakeS3
from tests.unit.strategies_envelope import (
    EVENT_MS,
    PADDED,
    SENT_AT_MS,
    SNS_MS,
    eventbridge,
    gzipped,
    item,
    record,
    sns,
    text,
)

SENT = Version(SENT_AT_MS)
EVENT = Version(EVENT_MS, PADDED)
POINTER = "software.amazon.payloadoffloading.PayloadS3Pointer"


def message(body: Any) -> Message:
    return Message(
        id="m",
        body=body if isinstance(body, str) else text(body),
        receipt_handle="r",
        receive_count=1,
        sent_at=SENT_AT_MS / 1000,
    )


async def documents(body: Any, objects: Mapping[str, bytes | str | Exception] | None = None) -> Read:
    return await read_documents(Reader(FakeS3(objects)), body)


async def requests(body: Any, objects: Mapping[str, bytes | str | Exception] | None = None) -> Requests:
    return await read_requests(Reader(FakeS3(objects)), body)


async def read_documents(reader: Reader, body: Any) -> Read:
    async with reader.documents(message(body)) as read:
        return read


async def read_requests(reader: Reader, body: Any) -> Requests:
    async with reader.requests(message(body)) as asked:
        return asked


def bad(refusals: tuple[Refusal, ...]) -> list[tuple[str, str | None]]:
    return [(refusal.error.error_class, refusal.body) for refusal in refusals]


def lines(*values: Any) -> str:
    return "\n".join(text(value) for value in values)


async def test_an_item() -> None:
    """A message that is an item is one document, alone."""
    read = await documents(item())
    assert read == Read((Document("item", item(), SENT),))
    assert read.alone


async def test_a_collection() -> None:
    """A message that is a collection is a document of its own kind."""
    collection = {"type": "Collection", "id": "c"}
    assert await documents(collection) == Read((Document("collection", collection, SENT),))


async def test_objects_of_an_event() -> None:
    """Items from S3 have their event's version and tell where they came from; order is kept."""
    event = {
        "Records": [record("lines"), record("one"), record("gone", "ObjectRemoved:Delete"), record("folder/", size=0)]
    }
    read = await documents(
        sns(text(event)),
        {"s3://granules/lines": lines(item("a"), item("b")), "s3://granules/one": text(item("c"))},
    )
    assert read == Read(
        (
            Document("item", item("a"), EVENT, "s3://granules/lines line 1"),
            Document("item", item("b"), EVENT, "s3://granules/lines line 2"),
            Document("item", item("c"), EVENT, "s3://granules/one"),
        ),
        removed=(S3Removed(S3Location("granules", "gone"), EVENT),),
        ignored=("a folder was made in the S3 console: s3://granules/folder/",),
    )
    assert not read.alone


async def test_objects_are_fetched_together_within_the_bound() -> None:
    """The objects of one message are fetched at the same time, no more than may be."""
    keys = [f"s3://granules/{number}" for number in range(20)]
    objects = FakeS3({key: text(item(key)) for key in keys}, max_concurrency=4)
    event = {"Records": [record(str(number)) for number in range(20)]}
    read = await read_documents(Reader(objects), event)
    assert [document.body["id"] for document in read.documents] == keys
    assert sorted(objects.got) == sorted(keys)
    assert objects.most == 4


async def test_a_bad_object_costs_the_others_nothing() -> None:
    """A missing object, a bad line and a bad record are refused, each in a form that can be sent again."""
    event = {"Records": [record("missing"), record("lines"), {"eventSource": "aws:sqs"}]}
    read = await documents(event, {"s3://granules/lines": lines(item("a"), [1]) + "\n{"})
    assert [document.body["id"] for document in read.documents] == ["a"]
    assert bad(read.refusals) == [
        ("bad_envelope", '{"Records":[{"eventSource":"aws:sqs"}]}'),
        ("object_missing", text_of(record("missing"))),
        ("not_stac", "[1]"),
        ("not_json", "{"),
    ]
    assert not read.alone


def text_of(one: dict[str, Any]) -> str:
    return orjson.dumps({"Records": [one]}).decode()


@pytest.mark.parametrize(
    ("body", "objects", "error_class"),
    [
        ({"Records": [record("missing")]}, {}, "object_missing"),
        ({"Records": [record("k")]}, {"s3://granules/k": "[]"}, "not_stac"),
        ({"Records": [record("k.ndjson")]}, {"s3://granules/k.ndjson": "{"}, "not_json"),
        ({"Records": [{}]}, {}, "bad_envelope"),
        ({"type": "FeatureCollection", "features": [1]}, {}, "not_stac"),
        ("hello", {}, "unknown_envelope"),
        ([POINTER, {"s3BucketName": "b", "s3Key": "missing"}], {}, "object_missing"),
        ([POINTER, {"s3BucketName": "b", "s3Key": "k"}], {"s3://b/k": b"\xff"}, "not_json"),
        ({"href": "https://example.com/item.json"}, {}, "unfetchable_href"),
        ({"href": "s3://bucket"}, {}, "unfetchable_href"),
    ],
)
async def test_a_message_with_one_bad_thing_is_refused_whole(
    body: Any, objects: dict[str, bytes | str], error_class: str
) -> None:
    """When the only content is bad, the message itself is the dead letter."""
    with pytest.raises(Permanent) as caught:
        await documents(body, objects)
    assert caught.value.error_class == error_class
    assert not isinstance(caught.value, Rejected)


async def test_a_part_too_large_to_be_sent_alone() -> None:
    """A bad line too large for a message is dead-lettered as its S3 record."""
    large = '{"a": "' + "x" * 250_000
    event = {"Records": [record("k.ndjson")]}
    read = await documents(event, {"s3://granules/k.ndjson": lines(item("a")) + "\n" + large})
    assert bad(read.refusals) == [("not_json", text_of(record("k.ndjson")))]


async def test_many_bad_parts_become_one_refusal() -> None:
    """No message floods the dead-letter queue."""
    many = MAX_REFUSED_PARTS + 1
    read = await documents(
        {"Records": [record("k.ndjson")]}, {"s3://granules/k.ndjson": text(item("a")) + "\n{" * many}
    )
    assert len(read.documents) == 1
    assert [(r.error.error_class, r.error.reason, r.body) for r in read.refusals] == [
        (
            "not_json",
            (
                "1001 parts are bad and kept together; the first: not JSON: s3://granules/k.ndjson line 2: "
                "unexpected end of data: line 1 column 2 (char 1)"
            ),
            text_of(record("k.ndjson")),
        )
    ]
    whole = await documents({"type": "FeatureCollection", "features": [item("a"), *range(many)]})
    assert bad(whole.refusals) == [("not_stac", None)]


async def test_bad_parts_that_cannot_be_sent_alone_share_one_refusal() -> None:
    """The whole is dead-lettered once for all parts that it must stand for, however many they are."""
    deep = text(item("deep")).replace('"links": []', '"links": ' + "[" * 300 + "]" * 300)
    body = f'{{"type": "FeatureCollection", "features": [{deep}, 7, {text(item("a"))}, {deep}]}}'
    read = await documents(body)
    assert [document.body["id"] for document in read.documents] == ["a"]
    assert [(r.error.error_class, r.error.reason, r.body) for r in read.refusals] == [
        (
            "not_stac",
            ('not a STAC item: message body feature 2: features must be objects with "type": "Feature", this is 7'),
            "7",
        ),
        (
            "too_deep",
            (
                "2 parts are bad and kept together; the first: nested too deep, more than 253 levels: "
                "message body feature 1"
            ),
            None,
        ),
    ]


@pytest.mark.parametrize(
    "error", [Transient("denied", error_class="object_access_denied"), Unavailable("no", dependency="s3")]
)
async def test_an_object_that_cannot_be_had_now(error: Exception) -> None:
    """The whole message is tried again when one of its objects cannot be had now."""
    event = {"Records": [record("good"), record("bad")]}
    with pytest.raises(type(error)) as caught:
        await documents(event, {"s3://granules/good": text(item()), "s3://granules/bad": error})
    assert caught.value is error


async def test_an_outage_outweighs_one_object() -> None:
    """Of several failures the one that pauses polling is raised."""
    outage = Unavailable("no", dependency="s3")
    event = {"Records": [record("a"), record("b"), record("c")]}
    with pytest.raises(Unavailable):
        await documents(
            event, {"s3://granules/a": Transient("x"), "s3://granules/b": outage, "s3://granules/c": Transient("y")}
        )


async def test_a_failure_stops_the_other_fetches() -> None:
    """When one object fails, nothing goes on in the background."""
    objects = FakeS3({"s3://granules/0": Transient("x")}, max_concurrency=2)
    event = {"Records": [record(str(number)) for number in range(50)]}
    with pytest.raises(Transient):
        await read_documents(Reader(objects), event)
    assert objects.now == 0
    assert len(objects.got) < 10


@pytest.mark.parametrize("wrap", [text, lambda body: text(sns(text(body))), lambda body: gzipped(text(body))])
async def test_a_body_that_lies_in_s3(wrap: Callable[[Any], str]) -> None:
    """A pointer is followed, in whatever it is wrapped, and the body behind it unwrapped in turn."""
    inner = sns(text(item()))
    body = wrap([POINTER, {"s3BucketName": "large", "s3Key": "k"}])
    read = await documents(body, {"s3://large/k": text(inner)})
    assert read == Read((Document("item", item(), Version(SNS_MS), "s3://large/k"),))


async def test_a_pointer_keeps_the_time_around_it() -> None:
    """The version of a body behind a pointer comes from the envelope around the pointer."""
    pointer = [POINTER, {"s3BucketName": "large", "s3Key": "k"}]
    read = await documents(sns(text(pointer)), {"s3://large/k": text(item())})
    assert [document.version for document in read.documents] == [Version(SNS_MS)]


async def test_pointers_that_go_round() -> None:
    """A pointer to itself is followed ten times at most."""
    pointer = text([POINTER, {"s3BucketName": "b", "s3Key": "k"}])
    objects = FakeS3({"s3://b/k": pointer})
    with pytest.raises(Permanent) as caught:
        await read_documents(Reader(objects), pointer)
    assert caught.value.error_class == "too_many_envelopes"
    assert len(objects.got) == 10


@pytest.mark.parametrize(
    "body", ["s3://b/items.json", '"s3://b/items.json"', '{"href": "https://b.s3.amazonaws.com/items.json"}']
)
async def test_links_to_s3_are_loaded(body: str) -> None:
    """A link to an object is loaded with the version of its message."""
    read = await documents(body, {"s3://b/items.json": text(item())})
    assert read == Read((Document("item", item(), SENT, "s3://b/items.json"),))


async def test_large_bodies_and_objects() -> None:
    """What is large is worked on in a thread, with the same result."""
    many = [item(str(number), description="x" * 1000) for number in range(1200)]
    collection = text({"type": "FeatureCollection", "features": many})
    assert len(collection) > 1_000_000
    read = await documents("s3://b/k", {"s3://b/k": collection})
    assert [document.body for document in read.documents] == many
    read = await documents(collection)
    assert [document.body for document in read.documents] == many


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ({"package_name": "p"}, "an ItemRequest"),
        ({"id": "a", "path": "b"}, 'a request {"id", "path"}'),
        ({"assets": {}, "properties": {}}, "a partial item, without a type"),
        ("a/b.tif", "a bare object key"),
    ],
)
async def test_requests_on_a_load_queue(body: Any, what: str) -> None:
    """A request that reaches the loader is refused and says where it belongs."""
    with pytest.raises(Permanent) as caught:
        await documents(body)
    assert (caught.value.error_class, caught.value.reason) == (
        "wrong_queue",
        f"this is {what}: send it to a queue with type: generate",
    )


@pytest.mark.parametrize("more", [{}, {"id": "a", "collection": "c"}])
async def test_a_partial_item_reaches_the_generator_as_it_is(more: dict[str, Any]) -> None:
    """What it has is for the generator to keep; only `collection_id` says where the finished item goes."""
    partial = {"assets": {"data": {"href": "s3://b/k"}}, "properties": {"gsd": 10}, **more}
    asked = await requests(partial)
    assert asked.requests == (Request(partial, SENT),)
    (request,) = (await requests(sns(text({**partial, "collection_id": "d"})))).requests
    assert (request.collection_id, request.body) == ("d", {**partial, "collection_id": "d"})


async def test_a_collection_on_a_generate_queue() -> None:
    """A collection that reaches a generator is refused and says where it belongs."""
    with pytest.raises(Permanent, match="this is a STAC Collection: send it to a queue with type: load"):
        await requests({"type": "Collection", "id": "c"})


async def test_what_asks_for_nothing() -> None:
    """A test event leaves nothing to do, for the loader and for a generator."""
    body = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}
    assert await documents(body) == Read(ignored=("s3:TestEvent of the bucket 'b'",))
    assert await requests(body) == Requests(ignored=("s3:TestEvent of the bucket 'b'",))


async def test_requests_from_s3_events() -> None:
    """Objects become requests by name; removed ones ask for nothing; bad records are refused alone."""
    event = {"Records": [record("a+b.tif"), record("c.tif", "ObjectRemoved:Delete"), 7]}
    asked = await requests(event)
    assert asked.requests == (
        Request(
            {"href": "s3://granules/a b.tif", "bucket": "granules", "key": "a b.tif"},
            EVENT,
            origin="s3://granules/a b.tif",
        ),
    )
    assert asked.ignored == ("removed, which is nothing to generate from: s3://granules/c.tif",)
    assert bad(asked.refusals) == [("bad_envelope", '{"Records":[7]}')]
    assert not asked.alone


ITEM_REQUEST = {
    "package_name": "stactools-naip",
    "group_name": "naip",
    "create_item_args": ["ca", "2018", "https://example.com/x.tif"],
    "collection_id": "naip",
}


@pytest.mark.parametrize(
    ("body", "request_"),
    [
        (ITEM_REQUEST, Request(ITEM_REQUEST, SENT, "naip", "stactools-naip")),
        ({"id": "S1A", "path": "GRD/S1A", "mode": "IW"}, Request({"id": "S1A", "path": "GRD/S1A", "mode": "IW"}, SENT)),
        ("GRD/S1A.tif", Request({"href": "GRD/S1A.tif"}, SENT)),
        (
            "https://example.com/x.tif",
            Request({"href": "https://example.com/x.tif"}, SENT, origin="https://example.com/x.tif"),
        ),
        (
            {"href": "s3://b/x.tif", "collection_id": "c", "date": "2024-05-01"},
            Request(
                {"bucket": "b", "key": "x.tif", "href": "s3://b/x.tif", "collection_id": "c", "date": "2024-05-01"},
                SENT,
                "c",
                origin="s3://b/x.tif",
            ),
        ),
        ({"href": "s3://b/"}, Request({"href": "s3://b/"}, SENT, origin="s3://b/")),
        (item(), Request(item(), SENT)),
    ],
)
async def test_requests(body: Any, request_: Request) -> None:
    """Every other form is one request, with its own body; nothing is fetched."""
    objects = FakeS3()
    asked = await read_requests(Reader(objects), body)
    assert asked == Requests((request_,))
    assert asked.alone
    assert objects.got == []


async def test_a_request_that_lies_in_s3() -> None:
    """A pointer on a generate queue is followed as well."""
    body = eventbridge([POINTER, {"s3BucketName": "large", "s3Key": "k"}])
    body["detail"] = text(body["detail"])
    asked = await requests(body, {"s3://large/k": text(ITEM_REQUEST)})
    assert [request.body for request in asked.requests] == [ITEM_REQUEST]


async def test_ping_asks_the_store() -> None:
    """The reader is well when its store is."""
    objects = FakeS3()
    reader = Reader(objects)
    await reader.ping()
    objects.unavailable = Unavailable("gone", dependency="s3")
    with pytest.raises(Unavailable, match="gone"):
        await reader.ping()
