"""What a message's body can hold: the results of `unwrap`.

A form is a plain statement of what was found. Nothing is fetched yet and no item is checked yet. Every
form carries the `Version` that the innermost envelope with a time gave it (see `api.Version`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from stacworker.api import Version
from stacworker.errors import Refusal


@dataclass(frozen=True, slots=True)
class S3Location:
    """Where an object is; `key` is the key itself, decoded. `str()` gives `s3://bucket/key`."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True, slots=True)
class S3Created:
    """An object was written.

    `record` is the S3 record it came from, so that it can be sent again alone; None where the event
    holds nothing else (EventBridge). The event's version id is left out on purpose: see `S3Objects`.
    """

    location: S3Location
    version: Version
    record: dict[str, Any] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class S3Removed:
    """An object is gone: deleted, expired, or hidden by a delete marker."""

    location: S3Location
    version: Version


@dataclass(frozen=True, slots=True)
class Notice:
    """A notification that asks for nothing (`s3:TestEvent`, tagging, an empty list): acknowledge it.

    `text` says for people what it was.
    """

    text: str


@dataclass(frozen=True, slots=True)
class ItemForm:
    """A GeoJSON Feature, taken to be a STAC item. `origin` is as in `api.Document`."""

    body: dict[str, Any]
    version: Version
    origin: str = "message body"


@dataclass(frozen=True, slots=True)
class CollectionForm:
    """A STAC collection."""

    body: dict[str, Any]
    version: Version
    origin: str = "message body"


@dataclass(frozen=True, slots=True)
class ItemRequestForm:
    """StactoolsItemGenerator's request: which stactools package makes the item, and from what.

    `body` is the request as it came; only `package_name` and `collection_id` have been checked.
    """

    package_name: str
    collection_id: str | None
    body: dict[str, Any]
    version: Version


@dataclass(frozen=True, slots=True)
class PartialItem:
    """An item to be finished by a generator: it has `assets` and `properties`, both objects, and is no Feature yet."""

    body: dict[str, Any]
    version: Version


@dataclass(frozen=True, slots=True)
class IdPath:
    """The Sentinel-1 bucket's own notification: a granule's id and its folder; `body` has the rest."""

    id: str
    path: str
    body: dict[str, Any]
    version: Version


@dataclass(frozen=True, slots=True)
class Href:
    """A link to something; `body` is `{"href": …}` with whatever else the sender put there."""

    href: str
    body: dict[str, Any]
    version: Version


@dataclass(frozen=True, slots=True)
class Key:
    """A bare object key, without a bucket."""

    key: str
    version: Version


@dataclass(frozen=True, slots=True)
class AnyObject:
    """A JSON object of no known form, where it is wanted as it is."""

    body: dict[str, Any]
    version: Version


@dataclass(frozen=True, slots=True)
class Pointer:
    """The body itself was too large for SQS and lies in S3 (Amazon's extended client libraries).

    `level` counts the envelopes opened so far, this one included: the count goes on inside the object.
    """

    location: S3Location
    version: Version
    level: int


Form = (
    S3Created
    | S3Removed
    | Notice
    | ItemForm
    | CollectionForm
    | ItemRequestForm
    | IdPath
    | Href
    | PartialItem
    | Key
    | AnyObject
    | Pointer
)


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """What was found: good parts, and bad parts that cost the good ones nothing.

    A refusal's `body` is the bad part alone in a form that can be sent again, or None where the
    message's own body must stand for it.
    """

    forms: tuple[Form, ...] = ()
    refusals: tuple[Refusal, ...] = ()
