"""The words and ports of stacworker: what plugins implement and what flows between the parts.

A plugin is an async context manager with one working method and a `ping()`. Ports are Protocols: a
class need not inherit from them. The least of plugins is a plain function, `CreateItems`.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Concatenate, Literal, Protocol, TypeAlias, TypedDict, runtime_checkable

from stacworker.inflight import InFlight

__all__ = [
    "Consumer",
    "CreateItems",
    "Created",
    "Document",
    "DocumentKind",
    "Feed",
    "Generator",
    "HasDict",
    "Item",
    "ItemRequest",
    "Message",
    "Request",
    "Sink",
    "Version",
]

SENT_AT = "stacworker_sent_at"
"""The message attribute in which a dead letter keeps when its message was first sent (RFC 3339)."""
DocumentKind = Literal["item", "collection", "delete"]


@dataclass(frozen=True, slots=True)
class Message:
    """One delivery of a queue message.

    `sent_at` is seconds since the epoch; `attributes` are the message attributes in the form boto
    returns them (`{"name": {"StringValue": …, "DataType": …}}`); `sequence` is the number that a FIFO queue
    gave it (decimal digits, growing); `in_flight` is the queue's.
    """

    id: str
    body: str
    receipt_handle: str
    receive_count: int
    sent_at: float
    attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    group_id: str | None = None
    sequence: str = ""
    in_flight: InFlight = field(default_factory=InFlight, compare=False, repr=False)

    @property
    def first_sent_at(self) -> float:
        """When its sender sent it: as a dead letter that is sent again keeps it (`SENT_AT`), else `sent_at`."""
        text = self.attributes.get(SENT_AT, {}).get("StringValue")
        try:
            return min(self.sent_at, datetime.fromisoformat(text).timestamp()) if text else self.sent_at
        except (TypeError, ValueError, OverflowError):
            return self.sent_at


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """When a document was current: the newest version of an item wins.

    `time_ms` is milliseconds since the epoch: the S3 event's time, else the SNS `Timestamp`, else the
    time SQS was first sent the message. `sequencer` is an S3 event's sequencer or a FIFO queue's sequence number,
    left-padded with zeros to `SEQUENCER_DIGITS` (empty where there is none), which orders within a millisecond.
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
    """

    time_ms: int
    sequencer: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """What a message finally holds: an item, a collection, or the wish to delete an item.

    `body` is the parsed JSON object (for a delete: `{"id": …, "collection": …}`); `origin` says for
    people where it came from (`message body`, `s3://bucket/key`, `s3://bucket/key line 12`).
    """

    kind: DocumentKind
    body: dict[str, Any]
    version: Version
    origin: str = "message body"


@dataclass(frozen=True, slots=True)
class Request:
    """What a generator is asked to make items from.

    `body` is the JSON object that reached us (an ItemRequest, `{"id", "path"}`, or made from an S3
    event or URL: always with `href`, and with `bucket` and `key` where it is an S3 object).
    `collection_id` overrides the items' collection; `generator` names the generator to use where the
    request does (a stactools package name), else None.
    """

    body: dict[str, Any]
    version: Version
    collection_id: str | None = None
    generator: str | None = None
    origin: str = "message body"


class ItemRequest(TypedDict, total=False):
    """What a `create_items` function gets: the keys that each form of request has, beside any others.

    An S3 event or a URL has `href`, and `bucket` and `key` where it is an object in S3. The Sentinel-1 bucket's
    notifications have `id` and `path`. An item to be finished has `assets` and `properties`, perhaps an `id`.
    """

    href: str
    bucket: str
    key: str
    id: str
    path: str
    collection_id: str
    assets: dict[str, Any]
    properties: dict[str, Any]


class HasDict(Protocol):
    """A `pystac.Item`, or anything else that can be had as a dict."""

    def to_dict(self) -> dict[str, Any]:
        """Return the item as a JSON object."""


Item: TypeAlias = dict[str, Any] | HasDict
"""A STAC item as plain functions may return it."""

Created: TypeAlias = Item | Iterable[Item] | AsyncIterable[Item]
"""One item or several: as a list, generator, async generator or FeatureCollection; `[]` means none."""

CreateItems: TypeAlias = Callable[Concatenate[Any, ...], Created | Awaitable[Created]]
"""The plain protocol of generators: `create_items(request, **options)`, also as `async def`.

`request` is a JSON object, which may be annotated as `ItemRequest` or as a plain dict; the options are those of the
generator's settings. An exception ends the request: see docs/generators.md for which are tried again.
"""


@runtime_checkable
class Consumer(Protocol):
    """What is done with the messages of one queue."""

    async def handle(self, message: Message) -> None:
        """Work on one message; return only when everything it asks for is durable.

        Returning acknowledges the message. Raise `Permanent` to dead-letter it, `Rejected` to
        dead-letter parts of it, `Transient` to have it again later, `Unavailable` when a dependency is
        away. Anything else that escapes is treated as `Transient`.
        """

    async def ping(self) -> None:
        """Raise `Unavailable` when a dependency does not answer."""


class Sink(Protocol):
    """Where documents go."""

    async def put(self, documents: Sequence[Document], in_flight: InFlight) -> None:
        """Make all documents durable, or raise.

        Raises `Rejected` when at least one document is refused for good and all others are durable;
        `Transient` or `Unavailable` when at least one may yet succeed (the caller puts all again:
        putting twice is harmless).
        """

    async def ping(self) -> None:
        """Raise `Unavailable` when the sink's dependency does not answer."""


class Generator(Protocol):
    """Turns a request into items."""

    async def generate(self, request: Request) -> Sequence[dict[str, Any]]:
        """Return the items (parsed STAC item objects) of one request.

        Raises `Permanent` when the request can never succeed, `Transient` when it may later.
        """

    async def ping(self) -> None:
        """Raise `Unavailable` when the generator cannot work."""


class Feed(Protocol):
    """Finds out by itself what is to be done."""

    def requests(self) -> AsyncIterator[dict[str, Any] | str]:
        """Give requests, objects or texts as a queue's messages would be, for as long as there are any.

        Nothing remembers how far it came: after a restart it begins again and must give what may not be done
        yet; a request that comes twice is harmless.
        """


Managed = AbstractAsyncContextManager
"""A plugin's life: entered before the first message, left after the last."""
