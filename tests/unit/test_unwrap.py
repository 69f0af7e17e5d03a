"""Opening envelopes."""

from __future__ import annotations

import base64
import gzip
import json
import string
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stacworker.api import Version
from stacworker.envelope.forms import (
    AnyObject,
    CollectionForm,
    Href,
    IdPath,
    ItemForm,
    ItemRequestForm,
    Key,
    Notice,
    PartialItem,
    Pointer,
    S3Created,
    S3Location,
    S3Removed,
    Unwrapped,
)
from stacworker.envelope.unwrap import EXPECTED, MAX_LEVELS, unwrap
from stacworker.envelope.versions import padded_sequencer
from stacworker.errors import Permanent
from tests.unit.strategies_envelope import (
    ENCODERS,
    EVENT_MS,
    EVENTBRIDGE_MS,
    PADDED,
    SENT_AT_MS,
    SNS_MS,
    WRAPPERS,
    characters,
    eventbridge,
    gzipped,
    item,
    items,
    json_values,
    keys,
    near_misses,
    record,
    sns,
    text,
    wrappings,
)

SENT = Version(SENT_AT_MS)
EVENT = Version(EVENT_MS, PADDED)
MODERN_POINTER = "software.amazon.payloadoffloading.PayloadS3Pointer"
OLD_POINTER = "com.amazon.sqs.javamessaging.MessageS3Pointer"


def opened(body: Any) -> Unwrapped:
    return unwrap(body if isinstance(body, str) else text(body), sent_at_ms=SENT_AT_MS)


def refused(body: Any) -> tuple[str, str]:
    with pytest.raises(Permanent) as caught:
        opened(body)
    return caught.value.error_class, caught.value.reason


def created(record_: dict[str, Any], key: str, version: Version = EVENT) -> S3Created:
    return S3Created(S3Location("granules", key), version, record_)


def test_item() -> None:
    """An item as it is, with the time the message was sent as its version."""
    assert opened(item()) == Unwrapped((ItemForm(item(), SENT),))


def test_collection() -> None:
    """A collection as it is."""
    collection = {"type": "Collection", "id": "c", "links": []}
    assert opened(collection) == Unwrapped((CollectionForm(collection, SENT),))


def test_text_that_looks_like_an_event_is_text() -> None:
    """An item that mentions S3's event source, an ARN and the names of envelopes stays an item."""
    tricky = item(
        "aws:s3 arn:aws:s3:::bucket/key",
        Type="Notification",
        Message="x",
        Records=[{"eventSource": "aws:s3"}],
        **{"detail-type": "Object Created", "detail": {}, "Event": "s3:TestEvent"},
    )
    assert opened(tricky) == Unwrapped((ItemForm(tricky, SENT),))


def test_feature_collection() -> None:
    """Every feature is an item that knows its position; bad ones are refused alone."""
    body = {"type": "FeatureCollection", "features": [item("a"), {"type": "Point"}, 7, item("b")]}
    result = opened(body)
    assert result.forms == (
        ItemForm(item("a"), SENT, "message body feature 1"),
        ItemForm(item("b"), SENT, "message body feature 4"),
    )
    assert [(r.error.error_class, r.error.reason, r.body) for r in result.refusals] == [
        (
            "not_stac",
            (
                'not a STAC item: message body feature 2: features must be objects with "type": "Feature", '
                "this is an object with the keys 'type'"
            ),
            '{"type":"Point"}',
        ),
        (
            "not_stac",
            'not a STAC item: message body feature 3: features must be objects with "type": "Feature", this is 7',
            "7",
        ),
    ]


def test_empty_feature_collection_asks_for_nothing() -> None:
    """An empty FeatureCollection is acknowledged, not refused."""
    result = opened({"type": "FeatureCollection", "features": []})
    assert result == Unwrapped((Notice("an empty FeatureCollection: message body"),))


@pytest.mark.parametrize("features", [None, "x", {}, 3])
def test_feature_collection_without_a_list(features: object) -> None:
    """A FeatureCollection whose features are no list is refused."""
    assert refused({"type": "FeatureCollection", "features": features}) == (
        "bad_feature_collection",
        "a FeatureCollection needs a list as its features: message body",
    )


def test_sns() -> None:
    """SNS's own time is the version of what it carries."""
    assert opened(sns(text(item()))) == Unwrapped((ItemForm(item(), Version(SNS_MS)),))


def test_sns_around_an_s3_event() -> None:
    """An S3 event keeps its own time and sequencer inside SNS."""
    one = record()
    assert opened(sns(text({"Records": [one]}))) == Unwrapped((created(one, "items/a.json"),))


def test_sns_without_a_time() -> None:
    """Without a Timestamp the version is the time the message was sent."""
    message = sns(text(item()))
    del message["Timestamp"]
    assert opened(message) == Unwrapped((ItemForm(item(), SENT),))


@pytest.mark.parametrize(
    ("changes", "error_class", "reason"),
    [
        (
            {"Timestamp": "yesterday"},
            "bad_envelope",
            "the envelope's time must be like 2024-01-31T12:00:00.000Z, not 'yesterday'",
        ),
        ({"Timestamp": 7}, "bad_envelope", "the envelope's time must be like 2024-01-31T12:00:00.000Z, not 7"),
        (
            {"Message": {"a": 1}},
            "bad_envelope",
            (
                'an SNS message needs "Type": "Notification" and text as its Message, '
                "not 'Notification' and an object with the keys 'a'"
            ),
        ),
        (
            {"Type": "Other"},
            "bad_envelope",
            "an SNS message needs \"Type\": \"Notification\" and text as its Message, not 'Other' and 'x'",
        ),
        (
            {"Type": "SubscriptionConfirmation"},
            "sns_confirmation",
            (
                "SNS asks to confirm (SubscriptionConfirmation) for the topic "
                "'arn:aws:sns:us-west-2:123456789012:MyTopic': confirm the subscription with its token "
                "(aws sns confirm-subscription), then drop this message"
            ),
        ),
    ],
)
def test_bad_sns(changes: dict[str, Any], error_class: str, reason: str) -> None:
    """What SNS would not write is refused by name, and a confirmation says what to do."""
    assert refused(sns("x", **changes)) == (error_class, reason)


def test_s3_event_with_several_records() -> None:
    """Every record of an event is an object of its own, with its own version."""
    first, second, gone = record("a.json"), record("b.json", sequencer="ff"), record("c.json", "ObjectRemoved:Delete")
    assert opened({"Records": [first, second, gone]}) == Unwrapped(
        (
            created(first, "a.json"),
            created(second, "b.json", Version(EVENT_MS, "FF".rjust(32, "0"))),
            S3Removed(S3Location("granules", "c.json"), EVENT),
        )
    )


@given(key=keys.filter(lambda key: len(key.encode()) <= 1024), encode=st.sampled_from(sorted(ENCODERS)))
def test_keys_survive_every_encoding(key: str, encode: str) -> None:
    """Whatever is in a key, and however its sender encoded it, the key comes out as it is in the bucket."""
    one = record(ENCODERS[encode](key))
    assert opened({"Records": [one]}) == Unwrapped((created(one, key),))


def test_spaces_and_plus_in_keys() -> None:
    """A space comes as + or %20, a plus as %2B."""
    ones = [record(key) for key in ("a+b.json", "a%20b.json", "a%2Bb.json")]
    assert opened({"Records": ones}).forms == (
        created(ones[0], "a b.json"),
        created(ones[1], "a b.json"),
        created(ones[2], "a+b.json"),
    )


def test_a_bad_record_costs_the_good_ones_nothing() -> None:
    """A bad record is refused alone, in a form that can be sent again."""
    good = record()
    sqs = {"eventSource": "aws:sqs", "body": "x"}
    result = opened({"Records": [sqs, good, None]})
    assert result.forms == (created(good, "items/a.json"),)
    assert [(r.error.error_class, r.error.reason, r.body) for r in result.refusals] == [
        ("bad_envelope", "record 1 of 3: its eventSource must be aws:s3, not 'aws:sqs'", text_of([sqs])),
        ("bad_envelope", "record 3 of 3: an S3 record must be an object, not null", '{"Records":[null]}'),
    ]


def text_of(records: list[Any]) -> str:
    return orjson.dumps({"Records": records}).decode()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda r: r.pop("eventName"), "its eventName must be like ObjectCreated:Put, not null"),
        (
            lambda r: r.update(eventName="Exploded:Now"),
            "unknown event 'Exploded': expected ObjectCreated or ObjectRemoved",
        ),
        (
            lambda r: r.update(eventTime="later"),
            "the envelope's time must be like 2024-01-31T12:00:00.000Z, not 'later'",
        ),
        (lambda r: r.update(s3=[]), "an S3 event needs an object 's3' in its record, not a list of 0"),
        (lambda r: r["s3"].pop("bucket"), "an S3 event needs an object 'bucket' in its s3, not null"),
        (lambda r: r["s3"].update(bucket={"name": "arn:aws:s3:::b"}), "not a bucket name: 'arn:aws:s3:::b'"),
        (
            lambda r: r["s3"].update(object={"key": ""}),
            "an object's key must be text and not empty, not ''",
        ),
        (
            lambda r: r["s3"].update(object={"key": ["a"]}),
            "an object's key must be text and not empty, not a list of 1",
        ),
        (
            lambda r: r["s3"].update(object={"key": "a%ff"}),
            "the key is not UTF-8 once decoded: 'a%ff'",
        ),
        (
            lambda r: r["s3"].update(object={"key": "k" * 1025}),
            f"an object's key has at most 1024 bytes: '{'k' * 80}…'",
        ),
    ],
)
def test_bad_records(change: Any, problem: str) -> None:
    """What S3 would not write is refused with the place of the mistake."""
    one = record()
    change(one)
    result = opened({"Records": [one]})
    assert [(r.error.reason, r.body) for r in result.refusals] == [(f"record 1 of 1: {problem}", text_of([one]))]
    assert result.forms == ()


def test_records_that_are_no_list() -> None:
    """Records must be a list; an empty one asks for nothing."""
    assert refused({"Records": {"s3": {}}}) == (
        "bad_envelope",
        "the Records of an S3 event must be a list, not an object with the keys 's3'",
    )
    assert opened({"Records": []}) == Unwrapped((Notice("an S3 event without records"),))


@pytest.mark.parametrize(
    ("one", "notice"),
    [
        (record("k", "ObjectTagging:Put"), "ObjectTagging: s3://granules/k"),
        (record("k", "s3:ObjectRestore:Completed"), "ObjectRestore: s3://granules/k"),
        (record("folder/", size=0), "a folder was made in the S3 console: s3://granules/folder/"),
        (
            record("k", "LifecycleExpiration:Delete", versionId="v1"),
            "one version was removed, perhaps not the current one: s3://granules/k",
        ),
    ],
)
def test_events_that_ask_for_nothing(one: dict[str, Any], notice: str) -> None:
    """Events that change no object, folders, and removals of one version are acknowledged."""
    assert opened({"Records": [one]}) == Unwrapped((Notice(notice),))


@pytest.mark.parametrize(
    "one",
    [
        record("k", "ObjectRemoved:Delete"),
        record("k", "s3:ObjectRemoved:Delete", versionId=""),
        record("k", "ObjectRemoved:DeleteMarkerCreated", versionId="v2"),
        record("k", "LifecycleExpiration:DeleteMarkerCreated", versionId="v2"),
    ],
)
def test_removals(one: dict[str, Any]) -> None:
    """An object that is gone, or hidden by a delete marker, is removed."""
    assert opened({"Records": [one]}) == Unwrapped((S3Removed(S3Location("granules", "k"), EVENT),))


def test_records_of_other_stores() -> None:
    """MinIO and Ceph write their own event source, or leave times out."""
    one = {
        "eventSource": "minio:s3",
        "eventName": "s3:ObjectCreated:Put",
        "s3": {"bucket": {"name": "granules"}, "object": {"key": "k"}},
    }
    assert opened({"EventName": "s3:ObjectCreated:Put", "Key": "granules/k", "Records": [one]}) == Unwrapped(
        (created(one, "k", SENT),)
    )


def test_s3_test_event() -> None:
    """What S3 sends when notifications are set up is acknowledged."""
    body = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2024-05-01T12:00:00Z", "Bucket": "granules"}
    assert opened(sns(text(body))) == Unwrapped((Notice("s3:TestEvent of the bucket 'granules'"),))


def s3_detail(**more: Any) -> dict[str, Any]:
    return {
        "version": "0",
        "bucket": {"name": "granules"},
        "object": {"key": "a+b%20c.json", "size": 5, "etag": "b1", "sequencer": "617f08299329d189"},
        **more,
    }


def test_eventbridge_object_created() -> None:
    """S3's events through EventBridge: the key is not encoded."""
    body = eventbridge(s3_detail(), detail_type="Object Created", source="aws.s3")
    version = Version(EVENTBRIDGE_MS, "617F08299329D189".rjust(32, "0"))
    assert opened(body) == Unwrapped((S3Created(S3Location("granules", "a+b%20c.json"), version),))


@pytest.mark.parametrize(
    ("deletion", "version_id", "kind"),
    [
        ("Permanently Deleted", None, S3Removed),
        ("Delete Marker Created", "v1", S3Removed),
        ("Permanently Deleted", "v1", Notice),
    ],
)
def test_eventbridge_object_deleted(deletion: str, version_id: str | None, kind: type) -> None:
    """A deletion through EventBridge counts unless it is of one version."""
    detail = s3_detail(**{"deletion-type": deletion})
    if version_id:
        detail["object"]["version-id"] = version_id
    (form,) = opened(eventbridge(detail, detail_type="Object Deleted", source="aws.s3")).forms
    assert isinstance(form, kind)


def test_eventbridge_around_others() -> None:
    """Other events carry an item, or text; their time is its version, and names alone deceive nobody."""
    expected = Unwrapped((ItemForm(item(), Version(EVENTBRIDGE_MS)),))
    assert opened(eventbridge(item())) == expected
    assert opened(eventbridge(text(item()))) == expected
    assert opened(eventbridge(item(), detail_type="Object Created")) == expected


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (eventbridge(7), "an EventBridge event's detail must be an object or text, not 7"),
        (
            eventbridge({}, detail_type="Object Created", source="aws.s3"),
            "an S3 event needs an object 'object' in its detail, not null",
        ),
        (
            eventbridge(item(), time=[]),
            "the envelope's time must be like 2024-01-31T12:00:00.000Z, not a list of 0",
        ),
    ],
)
def test_bad_eventbridge(body: dict[str, Any], reason: str) -> None:
    """What EventBridge or S3 would not write is refused with the place of the mistake."""
    assert refused(body) == ("bad_envelope", reason)


def test_item_request() -> None:
    """StactoolsItemGenerator's requests come through unchanged."""
    body = {
        "package_name": "stactools-glad-glclu2020",
        "group_name": "gladglclu2020",
        "create_item_args": ["https://example.com/50N_090W.tif"],
        "create_item_options": {"nodata": "0"},
        "collection_id": "glad",
    }
    expected = ItemRequestForm("stactools-glad-glclu2020", "glad", body, Version(SNS_MS))
    assert opened(sns(text(body))) == Unwrapped((expected,))


@pytest.mark.parametrize("collection_id", [None, ""])
def test_item_request_without_a_collection(collection_id: str | None) -> None:
    """No collection, null and an empty name mean the same."""
    body = {"package_name": "p", "collection_id": collection_id}
    assert opened(body) == Unwrapped((ItemRequestForm("p", None, body, SENT),))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"package_name": ["p"]}, "an ItemRequest's package_name must be text, not a list of 1"),
        ({"package_name": ""}, "an ItemRequest's package_name must be text, not ''"),
        (
            {"package_name": "p", "collection_id": 7},
            "an ItemRequest's collection_id must be text or null, not 7",
        ),
    ],
)
def test_bad_item_request(body: dict[str, Any], reason: str) -> None:
    """A request that names no package is refused."""
    assert refused(body) == ("bad_envelope", reason)


def test_id_and_path() -> None:
    """The Sentinel-1 bucket's notification keeps all its keys."""
    body = {"id": "S1A_IW", "path": "GRD/2024/5/1/IW/DV/S1A_IW", "mode": "IW", "footprint": {"type": "Polygon"}}
    assert opened(body) == Unwrapped((IdPath("S1A_IW", "GRD/2024/5/1/IW/DV/S1A_IW", body, SENT),))


def test_partial_item() -> None:
    """An item to be finished keeps all it has, with an id or without."""
    body = {"assets": {"data": {"href": "s3://b/k.tif"}}, "properties": {"gsd": 10}, "collection": "c"}
    assert opened(body) == Unwrapped((PartialItem(body, SENT),))
    assert opened({"id": "a", "type": None, **body}) == Unwrapped(
        (PartialItem({"id": "a", "type": None, **body}, SENT),)
    )


@pytest.mark.parametrize(
    "change",
    [{"assets": []}, {"properties": None}, {"type": "Point"}, {"type": ""}, {"assets": "s3://b/k"}],
)
def test_nearly_a_partial_item(change: dict[str, Any]) -> None:
    """Only objects will do, and what calls itself something else is something else."""
    assert refused({"assets": {}, "properties": {}} | change)[0] == "unknown_envelope"


@pytest.mark.parametrize(
    ("more", "form"),
    [({"href": "s3://b/k"}, Href), ({"id": "a", "path": "b"}, IdPath), ({"package_name": "p"}, ItemRequestForm)],
)
def test_what_was_a_request_before_is_no_partial_item(more: dict[str, Any], form: type) -> None:
    """Older forms win, so that no message changes its meaning."""
    (found,) = opened({"assets": {}, "properties": {}} | more).forms
    assert type(found) is form


def test_href() -> None:
    """A link keeps what came with it."""
    body = {"href": "https://example.com/a b.tif", "note": 1}
    assert opened(body) == Unwrapped((Href("https://example.com/a b.tif", body, SENT),))


@pytest.mark.parametrize("url", ["s3://granules/a.json", "https://example.com/x?y=1", "gs://b/ü.tif"])
@pytest.mark.parametrize("written", [str, json.dumps])
def test_bare_url(url: str, written: Callable[[str], str]) -> None:
    """A URL may stand alone, as plain text or as JSON text."""
    assert opened(written(url)) == Unwrapped((Href(url, {"href": url}, SENT),))


@pytest.mark.parametrize("key", ["path/to/granule", "granule.tif", "GRD/2024/5/1/", "a/b+c%20d.SAFE", "日本/ü.nc4"])
@pytest.mark.parametrize("written", [str, json.dumps])
def test_bare_key(key: str, written: Callable[[str], str]) -> None:
    """A key may stand alone, as plain text or as JSON text; it is taken as it is."""
    assert opened(written(key)) == Unwrapped((Key(key, SENT),))


@pytest.mark.parametrize("name", [MODERN_POINTER, OLD_POINTER])
def test_pointer(name: str) -> None:
    """A pointer of the extended clients names the object that holds the body, and how deep we are."""
    body = [name, {"s3BucketName": "large", "s3Key": "0a1b"}]
    assert opened(body) == Unwrapped((Pointer(S3Location("large", "0a1b"), SENT, 1),))
    assert opened(sns(text(body))) == Unwrapped((Pointer(S3Location("large", "0a1b"), Version(SNS_MS), 2),))


@pytest.mark.parametrize("rest", [[], [{}], [{"s3BucketName": "b"}], ["x", "y"]])
def test_bad_pointer(rest: list[Any]) -> None:
    """A pointer without bucket and key is refused."""
    assert refused([MODERN_POINTER, *rest]) == (
        "bad_envelope",
        'an extended-client pointer needs {"s3BucketName": …, "s3Key": …}',
    )


def test_gzip() -> None:
    """Base64 of gzip is opened, also with the line breaks that base64's command makes."""
    body = gzipped(text(item("x" * 100)))
    wrapped = "\n".join(body[at : at + 76] for at in range(0, len(body), 76)) + "\n"
    expected = Unwrapped((ItemForm(item("x" * 100), SENT),))
    assert opened(body) == expected
    assert opened(wrapped) == expected


def test_gzip_bomb() -> None:
    """A small body that unpacks to more than is allowed is refused."""
    bomb = gzipped(" " * 32_000_001)
    assert len(bomb) < 50_000
    assert refused(bomb) == (
        "object_too_large",
        "larger than 32000000 bytes after decompression: message body",
    )


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("", "it is empty (message body)"),
        (" \n", "it is empty (message body)"),
        ("hello world", "neither JSON nor a URL or key: 'hello world' (message body)"),
        ("hello", "neither JSON nor a URL or key: 'hello' (message body)"),
        ("a/b\nc/d", r"neither JSON nor a URL or key: 'a/b\nc/d' (message body)"),
        (" a/b", "neither JSON nor a URL or key: ' a/b' (message body)"),
        ("a/\x00", r"neither JSON nor a URL or key: 'a/\x00' (message body)"),
        ("a/\ud800", r"neither JSON nor a URL or key: 'a/\ud800' (message body)"),
        ("<Error>a/b</Error>", "neither JSON nor a URL or key: '<Error>a/b</Error>' (message body)"),
        ("NaN", "neither JSON nor a URL or key: 'NaN' (message body)"),
        ("H4sI!", "neither JSON nor a URL or key: 'H4sI!' (message body)"),
        ("null", "JSON, but neither an object nor text: null (message body)"),
        ("1.5", "JSON, but neither an object nor text: 1.5 (message body)"),
        ("{}", "an unknown form: an empty object (message body)"),
        ('{"id": 1, "path": "x"}', "an unknown form: an object with the keys 'id', 'path' (message body)"),
        ('{"href": ""}', "an unknown form: an object with the keys 'href' (message body)"),
        ('{"type": "Catalog"}', "an unknown form: an object with the keys 'type' (message body)"),
        ("[1]", "a JSON list: a list of 1; a FeatureCollection can hold many items (message body)"),
        (
            '{"a": 1',
            "it starts like JSON, but unexpected end of data: line 1 column 8 (char 7) (message body)",
        ),
        (
            '{"a": NaN}',
            (
                "it starts like JSON, but unexpected character, expected a JSON value: line 1 column 7 (char 6) "
                "(message body)"
            ),
        ),
    ],
)
def test_unknown_forms(body: str, problem: str) -> None:
    """What is not understood is refused with its start and with what was expected."""
    assert refused(body) == (
        "unknown_envelope",
        f"not understood: {problem}; it starts with {body!r}; {EXPECTED}",
    )


def test_unknown_inside_envelopes() -> None:
    """The reason says how deep the trouble lies."""
    error_class, reason = refused(sns(text(eventbridge({"a": 1}))))
    assert error_class == "unknown_envelope"
    assert reason.startswith(
        "not understood: an unknown form: an object with the keys 'a' (message body > SNS > EventBridge); "
        """it starts with '{"Type": "Notification", "MessageId":"""
    )


def test_gzip_of_something_else() -> None:
    """Gzip of what is not text, and damaged gzip, are refused."""
    binary = base64.b64encode(gzip.compress(b"\xff\xfe")).decode()
    assert refused(binary)[1].startswith("not understood: not UTF-8 text (message body > gzip)")
    cut = base64.b64encode(gzip.compress(b'{"a": 1}')[:-9]).decode()
    assert refused(cut) == ("bad_gzip", "gzip data ends early: message body")


def test_cdse_push_event() -> None:
    """A subscription event of the Copernicus Data Space is no form we know, and the reason shows its keys."""
    body = {
        "@odata.context": "$metadata#Notification/$entity",
        "SubscriptionEvent": "created",
        "ProductId": "f867a59a-9336-46d0-93ae-e55bf29403f8",
        "ProductName": "S2A_MSIL1C_20240912T112541_N0511_R137_T28PHQ_20240912T133420.SAFE",
        "value": {"@odata.context": "$metadata#Products", "Id": "f867a59a-9336-46d0-93ae-e55bf29403f8"},
    }
    error_class, reason = refused(body)
    assert error_class == "unknown_envelope"
    assert "an object with the keys '@odata.context', 'SubscriptionEvent', 'ProductId'" in reason


@pytest.mark.parametrize("wrapper", sorted(WRAPPERS))
def test_at_most_ten_envelopes(wrapper: str) -> None:
    """Ten envelopes are opened, the eleventh is refused."""
    body = text(item())
    for _ in range(MAX_LEVELS):
        body = WRAPPERS[wrapper](body)
    assert [form.body for form in opened(body).forms if isinstance(form, ItemForm)] == [item()]
    assert refused(WRAPPERS[wrapper](body))[0] == "too_many_envelopes"


def test_levels_go_on_inside_a_pointer() -> None:
    """A body reached through a pointer has only the levels that are left."""
    body = text(sns(text(item())))
    assert unwrap(body, sent_at_ms=0, level=9).forms == (ItemForm(item(), Version(SNS_MS)),)
    with pytest.raises(Permanent, match="more than 10 envelopes, one inside another: s3://b/k > SNS"):
        unwrap(body, sent_at_ms=0, level=10, origin="s3://b/k")


@given(body=items, wrapping=wrappings)
def test_any_item_in_any_envelopes(body: dict[str, Any], wrapping: list[str]) -> None:
    """Whatever an item holds and however it is wrapped, it comes out the same."""
    wrapped = text(body)
    for name in wrapping:
        wrapped = WRAPPERS[name](wrapped)
    (form,) = opened(wrapped).forms
    assert isinstance(form, ItemForm)
    assert form.body == orjson.loads(text(body))


_RECOGNISED = {"type", "Type", "Records", "Event", "detail-type", "package_name", "path", "href"}
_names = st.text(characters, max_size=10)


@given(
    body=st.dictionaries(_names, json_values, max_size=4),
    assets=st.dictionaries(_names, json_values, max_size=4),
    properties=st.dictionaries(_names, json_values, max_size=4),
    wrapping=wrappings,
)
def test_any_partial_item_in_any_envelopes(
    body: dict[str, Any], assets: dict[str, Any], properties: dict[str, Any], wrapping: list[str]
) -> None:
    """Whatever is in a partial item and however it is wrapped, it comes out the same."""
    partial = {name: value for name, value in body.items() if name not in _RECOGNISED}
    partial |= {"assets": assets, "properties": properties}
    wrapped = text(partial)
    for name in wrapping:
        wrapped = WRAPPERS[name](wrapped)
    (form,) = opened(wrapped).forms
    assert isinstance(form, PartialItem)
    assert form.body == orjson.loads(text(partial))


def test_item_with_deep_nesting() -> None:
    """An item is refused when it is nested too deep to be written again; orjson's own limit is met too."""

    def nested(levels: int) -> str:
        return text(item()).replace('"links": []', '"links": ' + "[" * levels + "]" * levels)

    assert len(opened(nested(250)).forms) == 1
    assert refused(nested(300)) == ("too_deep", "nested too deep, more than 253 levels: message body")
    assert refused(nested(5000))[0] == "unknown_envelope"
    assert refused(f'{{"href": "x/y", "a": {"[" * 300 + "]" * 300}}}')[0] == "too_deep"
    features = f'{{"type": "FeatureCollection", "features": [{nested(300)}, {text(item())}]}}'
    result = opened(features)
    assert result.forms == (ItemForm(item(), SENT, "message body feature 2"),)
    assert [(r.error.error_class, r.body) for r in result.refusals] == [("too_deep", None)]


@pytest.mark.parametrize("deep", ["[" * 1000 + "]" * 1000, '{"a":' * 1000 + "1" + "}" * 1000])
@pytest.mark.parametrize(
    "around",
    [
        "%s",
        '{"Records": %s}',
        '{"Records": [%s]}',
        '{"Records": [{"eventName": %s}]}',
        '{"Type": %s, "Message": %s}',
        '{"Type": "Notification", "Message": "x", "Timestamp": %s}',
        '{"detail-type": %s, "detail": %s}',
        '{"package_name": %s}',
        '{"Event": "s3:TestEvent", "Bucket": %s}',
        '{"type": %s}',
        '{"type": "FeatureCollection", "features": %s}',
        '["software.amazon.payloadoffloading.PayloadS3Pointer", %s]',
    ],
)
def test_deep_values_anywhere(around: str, deep: str) -> None:
    """Nesting that Python could not even print is refused or passed over, wherever it stands."""
    survives(around.replace("%s", deep))


def survives(body: str) -> None:
    assert all(reason.isprintable() for reason in reasons(body))


def reasons(body: str) -> list[str]:
    try:
        result = unwrap(body, sent_at_ms=SENT_AT_MS)
    except Permanent as error:
        return [error.reason]
    assert result.forms or result.refusals
    return [refusal.error.reason for refusal in result.refusals]


@given(json_values)
def test_any_json(value: object) -> None:
    """Arbitrary JSON is refused readably or understood, and nothing else."""
    survives(text(value))


@given(near_misses)
def test_any_near_miss(value: object) -> None:
    """JSON that nearly is an envelope, with wrong types in every place, is no different."""
    survives(text(value))


@given(st.text() | st.text(characters, max_size=50).map(lambda end: "H4sI" + end) | st.text(string.printable))
def test_any_text(body: str) -> None:
    """Arbitrary text, lone surrogates included, is no different."""
    survives(body)


@given(
    st.integers(0, 16**32 - 1), st.integers(0, 16**32 - 1), st.integers(0, 3), st.sampled_from([str.upper, str.lower])
)
def test_sequencers_order_as_numbers(one: int, other: int, zeros: int, case: Callable[[str], str]) -> None:
    """Sequencers of any length and case order as the numbers they are."""
    first = "0" * zeros + f"{one:x}"
    second = case(f"{other:x}")
    versions = Version(0, padded_sequencer(first)), Version(0, padded_sequencer(second))
    assert (versions[0] < versions[1]) == (one < other)
    assert (versions[0] == versions[1]) == (one == other)


@pytest.mark.parametrize("bad", [None, 7, "", "xyz", "12 34", "f" * 33])
def test_unusable_sequencers(bad: object) -> None:
    """What is no sequencer is as if there were none: the time decides."""
    assert padded_sequencer(bad) == ""


def test_a_message_alone_is_sns_shaped() -> None:
    """As backfills of others send it: without a type, and so without a time of its own."""
    found = unwrap(json.dumps({"Message": json.dumps({"id": "a", "path": "p"})}), sent_at_ms=5)
    assert found.forms == (IdPath("a", "p", {"id": "a", "path": "p"}, Version(5)),)
    with pytest.raises(Permanent):
        unwrap(json.dumps({"Message": {"id": "a"}}), sent_at_ms=5)


def test_an_object_that_nobody_knows_is_one_where_it_is_wanted() -> None:
    """In every envelope; known forms stay what they are, and what is no object is refused still."""
    body = {"granule": {"name": "x"}}
    for body_text in (json.dumps(body), json.dumps({"Message": json.dumps(body)}), json.dumps(json.dumps(body))):
        assert unwrap(body_text, sent_at_ms=5, any_object=True).forms == (AnyObject(body, Version(5)),)
        with pytest.raises(Permanent, match="not understood"):
            unwrap(body_text, sent_at_ms=5)
    assert unwrap('{"href": "s3://b/k"}', sent_at_ms=5, any_object=True).forms == (
        Href("s3://b/k", {"href": "s3://b/k"}, Version(5)),
    )
    with pytest.raises(Permanent, match="not understood"):
        unwrap("[1, 2]", sent_at_ms=5, any_object=True)
