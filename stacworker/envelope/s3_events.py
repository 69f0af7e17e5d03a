"""S3's own events: notification records, and what S3 tells EventBridge.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote_plus

from stacworker.api import Version
from stacworker.envelope.forms import Form, Notice, S3Created, S3Location, S3Removed, Unwrapped
from stacworker.envelope.locations import location
from stacworker.envelope.reasons import bad_envelope, shown
from stacworker.envelope.stac import resendable
from stacworker.envelope.versions import event_ms, padded_sequencer
from stacworker.errors import Permanent, Refusal

_REMOVED = frozenset({"ObjectRemoved", "LifecycleExpiration"})
_NOTHING = frozenset(
    {
        "IntelligentTiering",
        "LifecycleTransition",
        "ObjectAcl",
        "ObjectRestore",
        "ObjectTagging",
        "ReducedRedundancyLostObject",
        "Replication",
    }
)
DETAIL_TYPES = {
    "Object Created": "ObjectCreated",
    "Object Deleted": "ObjectRemoved",
    "Object ACL Updated": "ObjectAcl",
    "Object Access Tier Changed": "IntelligentTiering",
    "Object Restore Completed": "ObjectRestore",
    "Object Restore Expired": "ObjectRestore",
    "Object Restore Initiated": "ObjectRestore",
    "Object Storage Class Changed": "LifecycleTransition",
    "Object Tags Added": "ObjectTagging",
    "Object Tags Deleted": "ObjectTagging",
}
"""EventBridge's detail types for S3, in the words of the records' event names."""


def from_records(records: object, version: Version) -> Unwrapped:
    """Return the events of a notification's `Records`; a bad record becomes a refusal of its own.

    `version` is for records without a time. Raises `Permanent` when `records` is not a list.
    """
    if not isinstance(records, list):
        raise bad_envelope(f"the Records of an S3 event must be a list, not {shown(records)}")
    if not records:
        return Unwrapped((Notice("an S3 event without records"),))
    forms: list[Form] = []
    refusals: list[Refusal] = []
    for number, record in enumerate(records, start=1):
        try:
            forms.append(_from_record(record, version))
        except Permanent as error:
            bad = bad_envelope(f"record {number} of {len(records)}: {error.reason}")
            refusals.append(Refusal(bad, resendable({"Records": [record]})))
    return Unwrapped(tuple(forms), tuple(refusals))


def from_eventbridge(event: dict[str, Any], version: Version) -> Form:
    """Return the S3 event that EventBridge carries under one of `DETAIL_TYPES`; keys are not encoded.

    `version` is EventBridge's time, in whole seconds: the sequencer orders what happened within one.
    Raises `Permanent` when the event is not as S3 writes them.
    """
    detail = event["detail"]
    stored = _object(detail, "object", "detail")
    place = location(_object(detail, "bucket", "detail").get("name"), stored.get("key"))
    marker = detail.get("deletion-type") == "Delete Marker Created"
    return _form(
        DETAIL_TYPES[event["detail-type"]],
        place,
        Version(version.time_ms, padded_sequencer(stored.get("sequencer"))),
        one_version=not marker and _is_version(stored.get("version-id")),
        size_bytes=stored.get("size"),
        record=None,
    )


def _from_record(record: object, version: Version) -> Form:
    if not isinstance(record, dict):
        raise bad_envelope(f"an S3 record must be an object, not {shown(record)}")
    # Others than AWS write minio:s3, ceph:s3 or nothing at all.
    source = record.get("eventSource", "aws:s3")
    if not isinstance(source, str) or not source.endswith(":s3"):
        raise bad_envelope(f"its eventSource must be aws:s3, not {shown(source)}")
    name = record.get("eventName")
    if not isinstance(name, str):
        raise bad_envelope(f"its eventName must be like ObjectCreated:Put, not {shown(name)}")
    family, _, action = name.removeprefix("s3:").partition(":")
    s3 = _object(record, "s3", "record")
    stored = _object(s3, "object", "s3")
    key = stored.get("key")
    try:
        # Form-encoded: a space comes as "+" from some senders and as "%20" from others, a "+" as "%2B".
        decoded = unquote_plus(key, errors="strict") if isinstance(key, str) else key
    except UnicodeDecodeError:
        raise bad_envelope(f"the key is not UTF-8 once decoded: {shown(key)}") from None
    place = location(_object(s3, "bucket", "s3").get("name"), decoded)
    happened_ms = event_ms(record["eventTime"], version.time_ms) if "eventTime" in record else version.time_ms
    return _form(
        family,
        place,
        Version(happened_ms, padded_sequencer(stored.get("sequencer"))),
        one_version=action != "DeleteMarkerCreated" and _is_version(stored.get("versionId")),
        size_bytes=stored.get("size"),
        record=record,
    )


def _form(
    family: str,
    place: S3Location,
    version: Version,
    *,
    one_version: bool,
    size_bytes: object,
    record: dict[str, Any] | None,
) -> Form:
    if family == "ObjectCreated":
        if place.key.endswith("/") and size_bytes == 0:
            return Notice(f"a folder was made in the S3 console: {place}")
        return S3Created(place, version, record)
    if family in _REMOVED:
        if one_version:
            # Mostly lifecycle rules that clear old versions: the object lives on, and its item must not
            # vanish. Where it was the last version, comparing bucket and catalogue shows the orphan.
            return Notice(f"one version was removed, perhaps not the current one: {place}")
        return S3Removed(place, version)
    if family in _NOTHING:
        return Notice(f"{family}: {place}")
    raise bad_envelope(f"unknown event {shown(family)}: expected ObjectCreated or ObjectRemoved")


def _is_version(version_id: object) -> bool:
    """Objects of buckets that were never versioned have no version id, or `null`."""
    return isinstance(version_id, str) and version_id not in ("", "null")


def _object(value: object, name: str, parent: str) -> dict[str, Any]:
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, dict):
        raise bad_envelope(f"an S3 event needs an object {name!r} in its {parent}, not {shown(found)}")
    return found
