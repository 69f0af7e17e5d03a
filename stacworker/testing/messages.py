"""Messages as their senders write them: every form that docs/messages.md lists, for tests."""

from __future__ import annotations

import base64
import gzip
from typing import Any, NamedTuple
from urllib.parse import quote, quote_plus

import orjson

TIME = "2024-05-01T12:00:00.000Z"
"""When the samples' events happened."""

BUCKET = "granules"
KEY = "2024/05/01/scene a+b.json"
"""A key that senders encode in different ways."""

_POINTER_CLASS = "software.amazon.payloadoffloading.PayloadS3Pointer"


class SampleMessage(NamedTuple):
    """One message: its form, for the ids of parametrised tests, and its body."""

    name: str
    body: str


def sample_item(item_id: str = "sample", collection: str = "samples", **changes: Any) -> dict[str, Any]:
    """Return a small valid STAC item, with top-level fields changed."""
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": item_id,
        "collection": collection,
        "geometry": {"type": "Point", "coordinates": [10.0, 50.0]},
        "bbox": [10.0, 50.0, 10.0, 50.0],
        "properties": {"datetime": "2024-05-01T00:00:00Z"},
        "links": [],
        "assets": {},
        **changes,
    }


def sample_messages(
    *, bucket: str = BUCKET, key: str = KEY, href: str | None = None, item: dict[str, Any] | None = None
) -> list[SampleMessage]:
    """Return a message of every form, about one item and one object (`href`: by default its s3:// URL).

    Two of them name other objects: `sample_objects` has the contents of all.
    """
    item = item or sample_item()
    href = href or f"s3://{bucket}/{key}"
    event, as_text = s3_event(bucket, key), text(item)
    plain = key.replace(" ", "_").replace("+", "_")
    bodies = {
        "item": as_text,
        "item in SNS": sns(as_text),
        "item in SNS, raw delivery": as_text,
        "item in EventBridge": eventbridge("Item Published", item, source="my.application"),
        "item, gzipped": gzipped(as_text),
        "feature collection": text({"type": "FeatureCollection", "features": [item]}),
        "pointer": pointer(bucket, _payload(key)),
        "pointer in SNS": sns(pointer(bucket, _payload(key))),
        "S3 event": event,
        "S3 event in SNS": sns(event),
        "S3 event in SNS, raw delivery": event,
        "S3 event of two objects": s3_event(bucket, key, _second(key)),
        "S3 event, spaces as %20": event.replace("+", "%20"),
        "S3 event in EventBridge": eventbridge(
            "Object Created", {"bucket": {"name": bucket}, "object": {"key": key, "size": 1, "sequencer": "0A"}}
        ),
        "S3 test event": s3_test_event(bucket),
        "href": text({"href": href}),
        "URL": _url(href),
        "bare key": plain,
        "id and path": text({"id": plain.rpartition("/")[2], "path": plain}),
        "item request": text(
            {
                "package_name": "stactools-sample",
                "group_name": "sample",
                "create_item_args": [href],
                "create_item_options": {},
                "collection_id": item.get("collection"),
            }
        ),
        "partial item": text({"id": item["id"], "assets": {"data": {"href": href}}, "properties": {}}),
    }
    return [SampleMessage(*pair) for pair in bodies.items()]


def sample_objects(
    *, bucket: str = BUCKET, key: str = KEY, item: dict[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """Return what the objects that `sample_messages` names hold, by their s3:// URLs, where they hold items."""
    item = item or sample_item()
    second = {**item, "id": f"{item['id']}-2"}
    return {f"s3://{bucket}/{name}": of for name, of in ((key, item), (_second(key), second), (_payload(key), item))}


def text(value: Any) -> str:
    """Return a value as JSON text."""
    return orjson.dumps(value).decode()


def sns(message: str, *, timestamp: str = TIME) -> str:
    """Return what SNS delivers to a queue without raw delivery."""
    return text(
        {
            "Type": "Notification",
            "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
            "TopicArn": "arn:aws:sns:us-west-2:123456789012:news",
            "Message": message,
            "Timestamp": timestamp,
            "SignatureVersion": "1",
            "Signature": "EXAMPLE",
            "UnsubscribeURL": "https://sns.us-west-2.amazonaws.com/?Action=Unsubscribe",
        }
    )


def s3_event(bucket: str, *keys: str, name: str = "ObjectCreated:Put", size_bytes: int = 1024) -> str:
    """Return S3's notification about objects, a record each; keys are encoded as S3 does it."""
    return s3_records([s3_record(bucket, key, name=name, size_bytes=size_bytes) for key in keys])


def s3_records(records: list[dict[str, Any]]) -> str:
    """Return S3's notification with these records."""
    return text({"Records": records})


def s3_record(
    bucket: str,
    key: str,
    *,
    name: str = "ObjectCreated:Put",
    size_bytes: int = 1024,
    sequencer: str = "0055AED6DCD90281E5",
    time: str = TIME,
) -> dict[str, Any]:
    """Return one record of S3's notifications."""
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-west-2",
        "eventTime": time,
        "eventName": name,
        "s3": {
            "s3SchemaVersion": "1.0",
            "bucket": {"name": bucket, "arn": f"arn:aws:s3:::{bucket}"},
            "object": {"key": quote_plus(key, safe="/"), "size": size_bytes, "sequencer": sequencer},
        },
    }


def s3_test_event(bucket: str = BUCKET) -> str:
    """Return what S3 sends when notifications are set up."""
    return text({"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": TIME, "Bucket": bucket})


def eventbridge(detail_type: str, detail: Any, *, source: str = "aws.s3") -> str:
    """Return an event of EventBridge; keys of S3's objects are not encoded there."""
    return text(
        {
            "version": "0",
            "id": "17793124-05d4-b198-2fde-7ededc63b103",
            "detail-type": detail_type,
            "source": source,
            "account": "111122223333",
            "time": "2024-05-01T12:00:00Z",
            "region": "us-west-2",
            "resources": [],
            "detail": detail,
        }
    )


def pointer(bucket: str, key: str) -> str:
    """Return what Amazon's extended client libraries send in place of a large body."""
    return text([_POINTER_CLASS, {"s3BucketName": bucket, "s3Key": key}])


def gzipped(body: str) -> str:
    """Return a body as base64 of gzip."""
    return base64.b64encode(gzip.compress(body.encode(), mtime=0)).decode()


def _url(href: str) -> str:
    """Return a link as it can stand alone, which one with a space in it cannot."""
    if " " in href and href.startswith("s3://"):
        return f"https://s3.us-west-2.amazonaws.com/{quote(href.removeprefix('s3://'))}"
    return href.replace(" ", "%20")


def _payload(key: str) -> str:
    return f"{key}.payload"


def _second(key: str) -> str:
    folder, slash, name = key.rpartition("/")
    return f"{folder}{slash}second {name}"
