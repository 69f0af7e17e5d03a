"""S3 in memory."""

from __future__ import annotations

import gzip

import pytest

from stacworker.api import Message
from stacworker.envelope.forms import S3Location
from stacworker.envelope.objects import Objects
from stacworker.envelope.reader import Reader
from stacworker.errors import Permanent, Transient
from stacworker.testing.messages import sample_item, text
from stacworker.testing.s3 import FakeS3


async def test_objects_are_put_listed_and_fetched() -> None:
    """As the reader does it; text, bytes and JSON objects alike."""
    s3 = FakeS3({"s3://b/text": "é"})
    assert s3.put("s3://b/folder/json", {"a": 1}) == "s3://b/folder/json"
    s3.put("https://c.s3.amazonaws.com/gz", gzip.compress(b"packed"))
    store: Objects = s3
    assert await store.get(S3Location("b", "text")) == "é".encode()
    assert await store.get(S3Location("c", "gz")) == b"packed"
    assert s3.got == ["s3://b/text", "s3://c/gz"]
    assert s3.read("s3://b/folder/json") == b'{"a":1}'
    assert (s3.keys("b"), s3.keys("b", "folder/")) == (("folder/json", "text"), ("folder/json",))
    assert s3.list("s3://b/t") == ["s3://b/text"]
    s3.remove("s3://b/text")
    s3.remove("s3://b/text")
    assert s3.list() == ["s3://b/folder/json", "s3://c/gz"]


async def test_what_is_not_there_is_a_permanent_error() -> None:
    """And an exception in an object's place is raised."""
    s3 = FakeS3({"s3://b/slow": Transient("slow down")})
    with pytest.raises(Permanent) as raised:
        await s3.get(S3Location("b", "gone"))
    assert raised.value.error_class == "object_missing"
    with pytest.raises(Transient, match="slow down"):
        await s3.get(S3Location("b", "slow"))
    with pytest.raises(ValueError, match="expected s3://bucket/key"):
        s3.put("b/key", "")


async def test_its_events_lead_to_its_objects() -> None:
    """However odd the key; of two events about an object the later is newer."""
    s3 = FakeS3()
    url = s3.put("s3://b/odd é+&?.json", text(sample_item()))
    first, second = s3.event(url), s3.event(url)
    versions = []
    for body in (first, second):
        async with Reader(s3).documents(Message("m", body, "r", 1, sent_at=1.8e9)) as read:
            (document,) = read.documents
            assert (document.body, document.origin) == (sample_item(), url)
            versions.append(document.version)
    assert versions[0] < versions[1]


async def test_removals_are_events_too() -> None:
    """The object need not be there."""
    body = FakeS3().event("s3://b/k", name="ObjectRemoved:Delete")
    async with Reader(FakeS3()).documents(Message("m", body, "r", 1, sent_at=1.8e9)) as read:
        assert [str(removed.location) for removed in read.removed] == ["s3://b/k"]
