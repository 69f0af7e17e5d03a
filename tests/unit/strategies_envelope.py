"""Envelopes as their senders write them, and hypothesis strategies for arbitrary ones."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_plus

from hypothesis import strategies as st

SENT_AT_MS = 1_714_564_800_500
SNS_TIME = "2024-05-01T12:00:00.250Z"
SNS_MS = 1_714_564_800_250
EVENT_TIME = "2024-05-01T11:59:59.125Z"
EVENT_MS = 1_714_564_799_125
EVENTBRIDGE_TIME = "2024-05-01T11:59:59Z"
EVENTBRIDGE_MS = 1_714_564_799_000
SEQUENCER = "0055AED6DCD90281E5"
PADDED = "0000000000000000" + "55AED6DCD90281E5"


def item(id_: str = "a", **more: Any) -> dict[str, Any]:
    """Return a small STAC item."""
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": id_,
        "collection": "c",
        "geometry": {"type": "Point", "coordinates": [0.5, 1.5]},
        "bbox": [0.5, 1.5, 0.5, 1.5],
        "properties": {"datetime": "2024-05-01T00:00:00Z"},
        "links": [],
        "assets": {},
        **more,
    }


def sns(message: str, **changes: Any) -> dict[str, Any]:
    """Return what SNS delivers to SQS without raw delivery."""
    return {
        "Type": "Notification",
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": "arn:aws:sns:us-west-2:123456789012:MyTopic",
        "Message": message,
        "Timestamp": SNS_TIME,
        "SignatureVersion": "1",
        "Signature": "EXAMPLE",
        "UnsubscribeURL": "https://sns.us-west-2.amazonaws.com/?Action=Unsubscribe",
        **changes,
    }


def eventbridge(detail: Any, **changes: Any) -> dict[str, Any]:
    """Return an event of EventBridge; `detail_type` stands for `detail-type`."""
    kind = changes.pop("detail_type", "Item Published")
    return {
        "version": "0",
        "id": "17793124-05d4-b198-2fde-7ededc63b103",
        "detail-type": kind,
        "source": "my.application",
        "account": "111122223333",
        "time": EVENTBRIDGE_TIME,
        "region": "ca-central-1",
        "resources": [],
        "detail": detail,
        **changes,
    }


def record(key: str = "items/a.json", name: str = "ObjectCreated:Put", **stored: Any) -> dict[str, Any]:
    """Return one record of an S3 notification; `key` is as S3 sends it, encoded."""
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-west-2",
        "eventTime": EVENT_TIME,
        "eventName": name,
        "s3": {
            "s3SchemaVersion": "1.0",
            "bucket": {"name": "granules", "arn": "arn:aws:s3:::granules"},
            "object": {"key": key, "size": 1024, "sequencer": SEQUENCER, **stored},
        },
    }


def text(value: Any) -> str:
    """Return JSON text."""
    return json.dumps(value)


def gzipped(body: str) -> str:
    """Return base64 of gzip."""
    return base64.b64encode(gzip.compress(body.encode(), mtime=0)).decode()


WRAPPERS: dict[str, Callable[[str], str]] = {
    "sns": lambda body: text(sns(body)),
    "eventbridge text": lambda body: text(eventbridge(body)),
    "eventbridge object": lambda body: text(eventbridge(json.loads(body) if body.startswith("{") else body)),
    "json text": text,
    "gzip": gzipped,
}
"""Everything that a body can be put into, a level each."""

ENCODERS: dict[str, Callable[[str], str]] = {
    "form": quote_plus,
    "percent": quote,
    "percent, slashes too": lambda key: quote(key, safe=""),
}
"""The ways in which senders encode keys."""

characters = st.characters(codec="utf-8")
keys = st.text(characters, min_size=1, max_size=200)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**63), max_value=2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(characters, max_size=20)
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(characters, max_size=10), inner, max_size=4),
    max_leaves=20,
)
items = st.builds(
    lambda id_, properties: item(id_, properties=properties),
    st.text(characters, max_size=20),
    st.dictionaries(st.text(characters, max_size=10), json_values, max_size=4),
)
wrappings = st.lists(st.sampled_from(sorted(WRAPPERS)), max_size=10)

_NAMES = [
    "type",
    "Type",
    "Message",
    "Timestamp",
    "Records",
    "Event",
    "detail-type",
    "detail",
    "time",
    "source",
    "package_name",
    "collection_id",
    "id",
    "path",
    "href",
    "features",
    "assets",
    "properties",
    "eventSource",
    "eventName",
    "eventTime",
    "s3",
    "bucket",
    "object",
    "name",
    "key",
    "sequencer",
    "size",
    "versionId",
]
_WORDS = [
    "Feature",
    "FeatureCollection",
    "Collection",
    "Notification",
    "SubscriptionConfirmation",
    "aws:s3",
    "aws.s3",
    "s3:TestEvent",
    "ObjectCreated:Put",
    "ObjectRemoved:Delete",
    "Object Created",
    "Object Deleted",
    "s3://b/k",
    "software.amazon.payloadoffloading.PayloadS3Pointer",
    "H4sIAAAA",
    "2024-05-01T12:00:00Z",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
    "%ff",
    "{}",
    "[]",
]
names = st.sampled_from(_NAMES) | st.text(characters, max_size=6)
words = st.sampled_from(_WORDS)
near_misses = st.recursive(
    scalars | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=6) | inner.map(json.dumps),
    max_leaves=25,
)
"""JSON made of the very names and words that envelopes are recognised by, in wrong places and types."""
