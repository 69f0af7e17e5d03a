"""What a message's body holds, whatever it is wrapped in. Pure: nothing is fetched.

Envelopes are opened one inside another, at most `MAX_LEVELS`. What is recognised, in this order:

- JSON objects with `type` Feature, FeatureCollection or Collection: STAC, whatever else they contain;
- `Type: Notification`: SNS, its `Message` is opened;
- `Records`: an S3 event; `Event: s3:TestEvent`: what S3 sends when notifications are set up;
- `detail-type` and `detail`: EventBridge, an event of S3 or else its `detail` is opened;
- `package_name`: an ItemRequest; `id` and `path`: the Sentinel-1 form; `href`: a link;
  `assets` and `properties`, both objects, without a `type`: an item that a generator is to finish;
- a list of a class name and `{"s3BucketName", "s3Key"}`: an extended-client pointer;
- JSON text, base64 of gzip: opened;
- plain text: a URL, or a bare key (see `_KEY`).

The innermost envelope that states a time gives the version (`api.Version`).
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Any

import orjson

from stacworker.api import Version
from stacworker.envelope.forms import (
    AnyObject,
    Href,
    IdPath,
    ItemRequestForm,
    Key,
    Notice,
    PartialItem,
    Pointer,
    Unwrapped,
)
from stacworker.envelope.gzipped import gunzip
from stacworker.envelope.locations import MAX_KEY_BYTES, location
from stacworker.envelope.reasons import bad_envelope, shown
from stacworker.envelope.s3_events import DETAIL_TYPES, from_eventbridge, from_records
from stacworker.envelope.stac import check_depth, stac_forms
from stacworker.envelope.versions import event_ms
from stacworker.errors import Permanent

MAX_LEVELS = 10
MAX_INFLATED_BYTES = 32_000_000
"""A gzipped body may not be larger than this once decompressed."""

_UNKNOWN = "unknown_envelope"
EXPECTED = (
    "expected a STAC Item, Collection or FeatureCollection, an S3 event, an SNS or EventBridge message "
    'around one, an ItemRequest, {"id", "path"}, {"href"}, {"assets", "properties"}, a URL, an object key, '
    "or an extended-client pointer"
)

_POINTER_CLASSES = (
    "software.amazon.payloadoffloading.PayloadS3Pointer",
    "com.amazon.sqs.javamessaging.MessageS3Pointer",
)
# base64 of gzip's magic bytes and its only method.
_BASE64_GZIP = "H4sI"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s]+")
# A bare key is one printable word without quotes, brackets and the like, with a folder or a suffix. S3
# allows spaces in keys, but then any sentence would be one: such keys can be sent as {"href": …}.
_KEY = re.compile(r"""(?=.*/|.*[^./]\.[A-Za-z][A-Za-z0-9]{0,11}\Z)[^\s"'`<>|\\^{}\[\]]+""")


@dataclass(frozen=True, slots=True)
class _Inside:
    """Where in the envelopes we are: the version so far, and the names of what has been opened."""

    version: Version
    level: int
    origin: str
    names: tuple[str, ...] = ()
    any_object: bool = False

    def happened(self, time: object) -> Version:
        """Return the version of what an envelope holds that names this time (None: it names none)."""
        return self.version if time is None else Version(event_ms(time, self.version.time_ms), self.version.sequencer)

    def deeper(self, name: str, version: Version | None = None) -> _Inside:
        names = (*self.names, name)
        if self.level >= MAX_LEVELS:
            raise Permanent(
                f"more than {MAX_LEVELS} envelopes, one inside another: {self.origin} > {' > '.join(names)}",
                error_class="too_many_envelopes",
            )
        return _Inside(version or self.version, self.level + 1, self.origin, names, self.any_object)


def unwrap(
    body: str,
    *,
    sent_at_ms: int,
    sequencer: str = "",
    level: int = 0,
    origin: str = "message body",
    any_object: bool = False,
) -> Unwrapped:
    """Return what the body holds; a bad part of many is a refusal in the result.

    `sent_at_ms` is when the message was sent, in milliseconds since the epoch (0: not known), `sequencer` its
    place in a FIFO queue. The body of a pointer's object goes on with the pointer's `level` and its own `origin`.
    With `any_object` an object of a form that is not known is one of the results.
    Raises `Permanent`, and nothing else, when the body as a whole is not understood.
    """
    try:
        return _text(body, _Inside(Version(sent_at_ms, sequencer), level, origin, any_object=any_object))
    except Permanent as error:
        if error.error_class != _UNKNOWN:
            raise
        reason = f"not understood: {error.reason}; it starts with {shown(body)}; {EXPECTED}"
        raise Permanent(reason, error_class=_UNKNOWN) from None


def _text(text: str, inside: _Inside) -> Unwrapped:
    if text.startswith(_BASE64_GZIP):
        try:
            data = base64.b64decode("".join(text.split()), validate=True)
        except ValueError as error:  # binascii's own among them
            return _plain(text, inside, str(error))
        return _gzip(data, inside.deeper("gzip"))
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return _plain(text, inside, str(error))
    if isinstance(value, dict):
        return _object(value, inside)
    if isinstance(value, str):
        return _text(value, inside.deeper("JSON text"))
    if isinstance(value, list):
        return _list(value, inside)
    raise _unknown(f"JSON, but neither an object nor text: {shown(value)}", inside)


def _plain(text: str, inside: _Inside, json_error: str) -> Unwrapped:
    if text.isprintable():
        if _URL.fullmatch(text):
            return Unwrapped((Href(text, {"href": text}, inside.version),))
        if _KEY.fullmatch(text) and len(text.encode()) <= MAX_KEY_BYTES:
            return Unwrapped((Key(text, inside.version),))
    if not text.strip():
        raise _unknown("it is empty", inside)
    if text.lstrip().startswith(("{", "[", '"')):
        raise _unknown(f"it starts like JSON, but {json_error}", inside)
    raise _unknown(f"neither JSON nor a URL or key: {shown(text)}", inside)


def _gzip(data: bytes, inside: _Inside) -> Unwrapped:
    try:
        text = gunzip(data, MAX_INFLATED_BYTES, inside.origin).decode()
    except UnicodeDecodeError:
        raise _unknown("not UTF-8 text", inside) from None
    return _text(text, inside)


def _list(value: list[Any], inside: _Inside) -> Unwrapped:
    match value:
        case [str() as name, {"s3BucketName": bucket, "s3Key": key}] if name in _POINTER_CLASSES:
            deeper = inside.deeper("extended-client pointer")
            return Unwrapped((Pointer(location(bucket, key), deeper.version, deeper.level),))
        case [str() as name, *_] if name in _POINTER_CLASSES:
            raise bad_envelope('an extended-client pointer needs {"s3BucketName": …, "s3Key": …}')
    raise _unknown(f"a JSON list: {shown(value)}; a FeatureCollection can hold many items", inside)


def _object(value: dict[str, Any], inside: _Inside) -> Unwrapped:
    if (stac := stac_forms(value, inside.version, inside.origin)) is not None:
        return stac
    if "Message" in value and ("Type" in value or len(value) == 1):  # alone in what backfills of others send
        return _sns({"Type": "Notification", **value}, inside)
    if "Records" in value:
        return from_records(value["Records"], inside.version)
    if value.get("Event") == "s3:TestEvent":
        return Unwrapped((Notice(f"s3:TestEvent of the bucket {shown(value.get('Bucket'))}"),))
    if "detail-type" in value and "detail" in value:
        return _eventbridge(value, inside)
    return _request(value, inside)


def _request(value: dict[str, Any], inside: _Inside) -> Unwrapped:
    check_depth(value, inside.origin)
    if "package_name" in value:
        return _item_request(value, inside)
    match value:
        case {"id": str(id_), "path": str(path)} if id_ and path:
            return Unwrapped((IdPath(id_, path, value, inside.version),))
        case {"href": str(href)} if href:
            return Unwrapped((Href(href, value, inside.version),))
        case {"assets": dict(), "properties": dict()} if value.get("type") is None:
            return Unwrapped((PartialItem(value, inside.version),))
    if inside.any_object:
        return Unwrapped((AnyObject(value, inside.version),))
    raise _unknown(f"an unknown form: {shown(value)}", inside)


def _sns(value: dict[str, Any], inside: _Inside) -> Unwrapped:
    """Open what SNS delivers: https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html."""
    kind, message = value["Type"], value["Message"]
    if kind in ("SubscriptionConfirmation", "UnsubscribeConfirmation"):
        raise Permanent(
            f"SNS asks to confirm ({kind}) for the topic {shown(value.get('TopicArn'), 300)}: confirm the "
            "subscription with its token (aws sns confirm-subscription), then drop this message",
            error_class="sns_confirmation",
        )
    if kind != "Notification" or not isinstance(message, str):
        raise bad_envelope(
            f'an SNS message needs "Type": "Notification" and text as its Message, not {shown(kind)} and '
            f"{shown(message)}"
        )
    return _text(message, inside.deeper("SNS", inside.happened(value.get("Timestamp"))))


def _eventbridge(value: dict[str, Any], inside: _Inside) -> Unwrapped:
    """Open an event: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-events-structure.html."""
    deeper = inside.deeper("EventBridge", inside.happened(value.get("time")))
    kind, detail = value["detail-type"], value["detail"]
    if isinstance(kind, str) and kind in DETAIL_TYPES and value.get("source", "aws.s3") == "aws.s3":
        return Unwrapped((from_eventbridge(value, deeper.version),))
    if isinstance(detail, dict):
        return _object(detail, deeper)
    if isinstance(detail, str):
        return _text(detail, deeper)
    raise bad_envelope(f"an EventBridge event's detail must be an object or text, not {shown(detail)}")


def _item_request(value: dict[str, Any], inside: _Inside) -> Unwrapped:
    package, collection = value["package_name"], value.get("collection_id")
    if not isinstance(package, str) or not package:
        raise bad_envelope(f"an ItemRequest's package_name must be text, not {shown(package)}")
    if not isinstance(collection, str | None):
        raise bad_envelope(f"an ItemRequest's collection_id must be text or null, not {shown(collection)}")
    return Unwrapped((ItemRequestForm(package, collection or None, value, inside.version),))


def _unknown(problem: str, inside: _Inside) -> Permanent:
    where = f"{inside.origin} > {' > '.join(inside.names)}" if inside.names else inside.origin
    return Permanent(f"{problem} ({where})", error_class=_UNKNOWN)
