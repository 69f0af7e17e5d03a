"""The sample messages are what docs/messages.md says queues take."""

from __future__ import annotations

from pathlib import Path

import pytest

from stacworker.api import Message
from stacworker.envelope.reader import Read, Reader, Requests
from stacworker.errors import Permanent
from stacworker.testing.messages import BUCKET, KEY, SampleMessage, sample_item, sample_messages, sample_objects
from stacworker.testing.s3 import FakeS3

DOCS = Path(__file__).parents[3] / "docs" / "messages.md"
OBJECT = {"href": f"s3://{BUCKET}/{KEY}", "bucket": BUCKET, "key": KEY}
ONLY_GENERATE = {"bare key", "id and path", "item request", "partial item"}
TWO = {"S3 event of two objects"}
NOTHING = {"S3 test event"}

samples = pytest.mark.parametrize("sample", sample_messages(), ids=lambda sample: sample.name)


def message(sample: SampleMessage) -> Message:
    return Message("m", sample.body, "r", 1, sent_at=1.8e9)


async def read(sample: SampleMessage) -> Read:
    async with Reader(FakeS3(sample_objects())).documents(message(sample)) as found:
        return found


async def asked(sample: SampleMessage) -> Requests:
    async with Reader(FakeS3(sample_objects())).requests(message(sample)) as found:
        return found


@samples
async def test_a_load_queue_gets_the_item_or_says_where_the_message_belongs(sample: SampleMessage) -> None:
    """Whatever is around it, the item comes out."""
    if sample.name in ONLY_GENERATE:
        with pytest.raises(Permanent, match="type: generate"):
            await read(sample)
        return
    found = await read(sample)
    bodies = [document.body for document in found.documents]
    assert found.refusals == ()
    if sample.name in NOTHING:
        assert (bodies, len(found.ignored)) == ([], 1)
    else:
        assert bodies == [sample_item(), sample_item("sample-2")][: 2 if sample.name in TWO else 1]


@samples
async def test_a_generate_queue_gets_requests(sample: SampleMessage) -> None:
    """Every form is one, except the event that asks for nothing."""
    found = await asked(sample)
    bodies = [request.body for request in found.requests]
    assert found.refusals == ()
    if sample.name in NOTHING:
        assert bodies == []
    elif sample.name.startswith("S3 event") or sample.name in {"href", "URL"}:
        assert bodies[0] | {"href": OBJECT["href"]} == OBJECT
        assert len(bodies) == (2 if sample.name in TWO else 1)
    elif "item" in sample.name and sample.name not in ONLY_GENERATE:
        assert bodies == [sample_item()]
    else:
        assert len(bodies) == 1


def test_samples_are_about_what_they_are_asked_for() -> None:
    """Bucket, key, href and item are the test's own."""
    item = sample_item("mine", "c")
    found = dict(sample_messages(bucket="b", key="k.tif", href="https://example.com/k.tif", item=item))
    assert found["URL"] == "https://example.com/k.tif"
    assert '"key":"k.tif"' in found["S3 event"]
    assert '"name":"b"' in found["S3 event"]
    assert '"id":"mine"' in found["feature collection"]
    assert set(sample_objects(bucket="b", key="k.tif", item=item)) == {
        "s3://b/k.tif",
        "s3://b/second k.tif",
        "s3://b/k.tif.payload",
    }


@pytest.mark.skipif(not DOCS.exists(), reason="the documentation is not beside the tests")
def test_every_form_of_the_documentation_has_a_sample() -> None:
    """A row that is added to the tables needs a sample, or a place in this list."""
    rows = [
        line.split("|")[1].strip()
        for line in DOCS.read_text().split("## Which version")[0].splitlines()
        if line.startswith("| ") and not line.startswith(("| body", "| ---"))
    ]
    without = [
        row
        for row in rows
        if not any(
            start in row
            for start in (
                "a STAC Item",
                "FeatureCollection",
                "S3 event",
                "EventBridge",
                '{"href"',
                "extended-client pointer",
                "SNS",
                "base64 of gzip",
                "s3:TestEvent",
                "ItemRequest",
                '{"id": …, "path": …}',
                "partial item",
            )
        )
    ]
    assert without == [
        "a STAC Collection",
        "an `ObjectRemoved` event",
    ]
