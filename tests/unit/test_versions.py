"""What orders the states of a document, and who is believed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stacworker.api import SENT_AT, Message, Version
from stacworker.envelope.forms import ItemForm, S3Created
from stacworker.envelope.unwrap import unwrap
from stacworker.envelope.versions import MAX_SKEW_MS
from tests.unit.load.documents import item_body
from tests.unit.strategies_envelope import SENT_AT_MS, SNS_MS, SNS_TIME

FAR = "9999-12-31T23:59:59Z"


def sns(message: object, time: str) -> str:
    """Return a notification."""
    return json.dumps({"Type": "Notification", "Message": json.dumps(message), "Timestamp": time})


def event(time: str) -> dict[str, Any]:
    """Return an S3 event."""
    s3 = {"bucket": {"name": "b"}, "object": {"key": "k.json", "sequencer": "0A"}}
    return {"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "eventTime": time, "s3": s3}]}


def version(body: str, *, sent_at_ms: int = SENT_AT_MS) -> Version:
    """Return the version of what a body holds."""
    (form,) = unwrap(body, sent_at_ms=sent_at_ms).forms
    assert isinstance(form, ItemForm | S3Created)
    return form.version


def test_nothing_is_believed_to_come_from_the_future() -> None:
    """A time later than the envelope around it counts as that envelope's: forged, it would win for ever."""
    assert version(sns(item_body(), FAR)) == Version(SENT_AT_MS)
    assert version(json.dumps(event(FAR))).time_ms == SENT_AT_MS
    assert version(sns(event(FAR), SNS_TIME)).time_ms == SNS_MS
    eventbridge = {"detail-type": "x", "detail": item_body(), "time": FAR}
    assert version(json.dumps(eventbridge)) == Version(SENT_AT_MS)


def test_clocks_may_differ_a_little() -> None:
    """A few minutes are no forgery, and order what happened better than the time of sending."""
    assert version(sns(item_body(), SNS_TIME), sent_at_ms=SNS_MS - MAX_SKEW_MS) == Version(SNS_MS)
    assert version(sns(item_body(), SNS_TIME), sent_at_ms=SNS_MS - MAX_SKEW_MS - 1) == Version(SNS_MS - MAX_SKEW_MS - 1)


def test_a_queue_that_does_not_say_when_it_was_sent_a_message_doubts_nothing() -> None:
    """Some emulators leave the time out."""
    assert version(sns(item_body(), SNS_TIME), sent_at_ms=0) == Version(SNS_MS)


def test_a_fifo_queue_orders_within_a_millisecond() -> None:
    """Its sequence number goes with the time, in envelopes too; an S3 event has a sequencer of its own."""
    (bare,) = unwrap(json.dumps(item_body()), sent_at_ms=5, sequencer="0007").forms
    (wrapped,) = unwrap(sns(item_body(), "1970-01-01T00:00:00.003Z"), sent_at_ms=5, sequencer="0007").forms
    assert isinstance(bare, ItemForm)
    assert isinstance(wrapped, ItemForm)
    assert (bare.version, wrapped.version) == (Version(5, "0007"), Version(3, "0007"))


def message(attribute: str | None, sent_at: float = 1_000_000.0) -> Message:
    """Return a message that may have been a dead letter."""
    attributes = {} if attribute is None else {SENT_AT: {"DataType": "String", "StringValue": attribute}}
    return Message("m", "body", "handle", 1, sent_at, attributes)


@pytest.mark.parametrize(
    ("attribute", "first"),
    [
        (None, 1_000_000.0),
        ("1970-01-01T00:16:40.250+00:00", 1000.25),
        ("2024-01-01T00:00:00Z", 1_000_000.0),
        ("0000-99-01", 1_000_000.0),
        ("garbage", 1_000_000.0),
        ("", 1_000_000.0),
    ],
)
def test_what_was_a_dead_letter_keeps_the_time_it_was_first_sent(attribute: str | None, first: float) -> None:
    """Sent again it is as old as it was; nobody can make a message newer than it is."""
    assert message(attribute).first_sent_at == first
