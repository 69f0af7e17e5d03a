"""A message → the documents or the requests it holds: envelopes opened, S3 objects fetched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar
from weakref import WeakKeyDictionary

from stacworker.api import Document, Message, Request, Version
from stacworker.envelope.contents import object_forms
from stacworker.envelope.forms import (
    AnyObject,
    CollectionForm,
    Form,
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
from stacworker.envelope.locations import s3_location
from stacworker.envelope.objects import Objects
from stacworker.envelope.reasons import shown
from stacworker.envelope.room import Room, Share
from stacworker.envelope.stac import resendable
from stacworker.envelope.unwrap import unwrap
from stacworker.envelope.versions import padded_sequencer
from stacworker.errors import Permanent, Refusal, Unavailable
from stacworker.inflight import InFlight

__all__ = ["Read", "Reader", "Requests", "folded"]

MAX_REFUSED_PARTS = 1000
"""More bad parts than this in one message or object become one refusal: no flood of dead letters."""

MAX_HELD_BYTES = 256_000_000
"""While the messages of a queue hold more bytes of objects than this, no other of them fetches any."""

_OFF_LOOP_CHARS = 1_000_000
_ORIGIN_CHARS = 1100
_MAYBE_GZIP = "H4sI"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Read:
    """What a load consumer makes of a message; `ignored` says for people what asked for nothing."""

    documents: tuple[Document, ...] = ()
    removed: tuple[S3Removed, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def alone(self) -> bool:
        """True when the message holds exactly one thing: if that is bad, the message as it came is."""
        return len(self.documents) + len(self.removed) + len(self.refusals) == 1


@dataclass(frozen=True, slots=True)
class Requests:
    """What a generate consumer makes of a message; `ignored` as in `Read`."""

    requests: tuple[Request, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def alone(self) -> bool:
        """True when the message holds exactly one thing: if that is bad, the message as it came is."""
        return len(self.requests) + len(self.refusals) == 1


class Reader:
    """Opens messages. One for all consumers; what each queue's messages hold is bounded apart."""

    def __init__(
        self, objects: Objects, *, max_held_bytes: int = MAX_HELD_BYTES, max_parsed_bytes: int = MAX_HELD_BYTES
    ) -> None:
        self._objects = objects
        self._max_held_bytes = max_held_bytes
        self._max_parsed_bytes = max_parsed_bytes
        self._rooms: WeakKeyDictionary[InFlight, Room] = WeakKeyDictionary()

    @asynccontextmanager
    async def documents(self, message: Message) -> AsyncIterator[Read]:
        """Give what a message on its way to the catalogue holds, in the message's order, while it is worked on.

        Objects that it names are fetched at the same time. Bad parts of many are refusals: load the
        rest, then raise `Rejected` with them. Raises `Permanent` when nothing in the message is any good or
        its only content is bad; `Transient` or `Unavailable` when an object cannot be had now (the
        whole message is to be tried again: loading twice is harmless).
        """
        async with self._share(message.in_flight) as share:
            opened = await self._opened(message, share)
            found = await self._contents(opened, share)
            share.fetched()
            yield _read(found)

    @asynccontextmanager
    async def requests(self, message: Message, *, any_object: bool = False) -> AsyncIterator[Requests]:
        """Give what a message on its way to a generator asks for; objects are named, not fetched.

        An item is a request like any other; with `any_object` so is an object of a form that nobody knows.
        Removed objects are ignored. Raises as `documents` does.
        """
        async with self._share(message.in_flight) as share:
            opened = await self._opened(message, share, any_object=any_object)
            share.fetched()
            yield _requests(opened)

    async def ping(self) -> None:
        """Raise `Unavailable` while objects cannot be fetched."""
        await self._objects.ping()

    def _share(self, in_flight: InFlight) -> Share:
        room = self._rooms.get(in_flight)
        if room is None:
            room = Room(
                max_bytes=self._max_held_bytes,
                max_readers=self._objects.max_concurrency,
                max_parsed_bytes=self._max_parsed_bytes,
            )
            self._rooms[in_flight] = room
        return Share(room, in_flight)

    async def _opened(self, message: Message, share: Share, *, any_object: bool = False) -> Unwrapped:
        """Unwrap the body, and the body it points to where it was too large for SQS.

        (Amazon's own clients delete that object when they delete the message. We leave it: a dead
        letter still points to it. A lifecycle rule clears it.)
        """
        body, version = message.body, Version(round(message.first_sent_at * 1000), padded_sequencer(message.sequence))
        level, origin = 0, "message body"
        while True:
            await share.may_parse(len(body))
            found = await _off_loop(
                len(body) > _OFF_LOOP_CHARS or _MAYBE_GZIP in body,
                partial(
                    unwrap,
                    body,
                    sent_at_ms=version.time_ms,
                    sequencer=version.sequencer,
                    level=level,
                    origin=origin,
                    any_object=any_object,
                ),
            )
            match found.forms:
                case (Pointer() as pointer,):
                    await share.may_fetch()
                    data = share.add(await self._objects.get(pointer.location))
                    level, version, origin = pointer.level, pointer.version, str(pointer.location)
                    body = _decoded(data, origin)
                case _:
                    return Unwrapped(found.forms, folded(found.refusals))

    async def _contents(self, opened: Unwrapped, share: Share) -> Unwrapped:
        """Put in place of every form that names an object what the object holds."""
        results = [Unwrapped((form,)) for form in opened.forms]
        named = [(at, form) for at, form in enumerate(opened.forms) if isinstance(form, S3Created | Href)]
        if not named:
            return opened
        await share.may_fetch()
        rest = iter(named)

        async def fetch() -> None:
            for at, form in rest:
                results[at] = await self._content(form, share)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(len(named), self._objects.max_concurrency)):
                    group.create_task(fetch())
        except ExceptionGroup as failures:
            # One error decides what becomes of the message; an outage tells most.
            raise min(failures.exceptions, key=lambda error: not isinstance(error, Unavailable)) from failures
        return Unwrapped(
            tuple(form for result in results for form in result.forms),
            opened.refusals + tuple(refusal for result in results for refusal in result.refusals),
        )

    async def _content(self, form: S3Created | Href, share: Share) -> Unwrapped:
        record = form.record if isinstance(form, S3Created) else None
        try:
            location = form.location if isinstance(form, S3Created) else _fetchable(form.href)
            data = share.add(await self._objects.get(location))
            await share.may_parse(len(data))
            found = await _off_loop(len(data) > _OFF_LOOP_CHARS, partial(object_forms, data, location, form.version))
        except Permanent as error:
            found = Unwrapped(refusals=(Refusal(error),))
        whole = resendable({"Records": [record]}) if record and found.refusals else None
        refusals = tuple(
            refusal if refusal.body is not None else Refusal(refusal.error, whole) for refusal in folded(found.refusals)
        )
        return Unwrapped(found.forms, refusals)


def _read(found: Unwrapped) -> Read:
    documents: list[Document] = []
    removed: list[S3Removed] = []
    ignored: list[str] = []
    for form in found.forms:
        match form:
            case ItemForm():
                documents.append(Document("item", form.body, form.version, form.origin))
            case CollectionForm():
                documents.append(Document("collection", form.body, form.version, form.origin))
            case S3Removed():
                removed.append(form)
            case Notice():
                ignored.append(form.text)
            case _:
                raise _wrong_queue(form, "generate")
    read = Read(tuple(documents), tuple(removed), found.refusals, tuple(ignored))
    if read.refusals and read.alone:
        raise read.refusals[0].error
    return read


def _requests(opened: Unwrapped) -> Requests:
    requests: list[Request] = []
    ignored: list[str] = []
    for form in opened.forms:
        match form:
            case Notice():
                ignored.append(form.text)
            case S3Removed():
                ignored.append(f"removed, which is nothing to generate from: {form.location}")
            case _:
                requests.append(_request(form))
    asked = Requests(tuple(requests), opened.refusals, tuple(ignored))
    if asked.refusals and asked.alone:
        raise asked.refusals[0].error
    return asked


def _fetchable(href: str) -> S3Location:
    if (location := s3_location(href)) is None:
        # Anybody who may send messages could otherwise make this process call any host it can reach.
        raise Permanent(
            f"only s3://bucket/key and https URLs of S3 are loaded, not {shown(href, 200)}",
            error_class="unfetchable_href",
        )
    return location


def _request(form: Form) -> Request:
    match form:
        case S3Created(location, version):
            asked = {"href": str(location), "bucket": location.bucket, "key": location.key}
            return Request(asked, version, origin=str(location))
        case Href(href, body, version):
            s3 = s3_location(href)
            place = {"bucket": s3.bucket, "key": s3.key} if s3 else {}
            return Request({**place, **body}, version, _collection_id(body), origin=href[:_ORIGIN_CHARS])
        case ItemRequestForm(package_name, collection_id, body, version):
            return Request(body, version, collection_id, generator=package_name)
        case IdPath(body=body, version=version) | PartialItem(body, version) | AnyObject(body, version):
            return Request(body, version, _collection_id(body))
        case Key(key, version):
            return Request({"href": key}, version)
        case ItemForm(body, version, origin):
            return Request(body, version, origin=origin)
        case _:
            raise _wrong_queue(form, "load")


def _collection_id(body: Mapping[str, object]) -> str | None:
    named = body.get("collection_id")
    return named if isinstance(named, str) and named else None


def _wrong_queue(form: Form, right: str) -> Permanent:
    what = {
        CollectionForm: "a STAC Collection",
        IdPath: 'a request {"id", "path"}',
        ItemRequestForm: "an ItemRequest",
        PartialItem: "a partial item, without a type",
        Key: "a bare object key",
    }[type(form)]
    return Permanent(f"this is {what}: send it to a queue with type: {right}", error_class="wrong_queue")


def _decoded(data: bytes, origin: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Permanent(f"not text: {origin}, which the message points to: {error}", error_class="not_json") from None


def folded(refusals: Sequence[Refusal]) -> tuple[Refusal, ...]:
    """Keep the parts that cannot be sent alone, or all when they are too many, as one refusal of the whole."""
    alone = [refusal for refusal in refusals if refusal.body is not None]
    if len(alone) > MAX_REFUSED_PARTS:
        alone = []
    whole = [refusal.error for refusal in refusals if refusal.body is None or not alone]
    if len(whole) <= 1:
        return tuple(refusals)
    reason = f"{len(whole)} parts are bad and kept together; the first: {whole[0].reason}"
    return (*alone, Refusal(Permanent(reason, error_class=whole[0].error_class)))


async def _off_loop(heavy: bool, work: Callable[[], T]) -> T:  # noqa: FBT001 - read as a sentence
    """Do heavy work in a thread, so that leases are extended meanwhile."""
    return await asyncio.to_thread(work) if heavy else work()
