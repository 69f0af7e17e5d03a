"""The consumer of queues that hold requests: generates their items and hands them to a sink."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog
from packaging.utils import canonicalize_name

from stacworker import tracing
from stacworker.api import Document, Generator, Message, Request, Sink
from stacworker.envelope.reader import Reader, Requests
from stacworker.envelope.stac import resendable
from stacworker.errors import Permanent, Refusal, Rejected, StacworkerError, Transient, Unavailable
from stacworker.generate.copies import AssetCopies
from stacworker.generate.stactools import requested_package
from stacworker.inflight import InFlight
from stacworker.metrics import Metrics


@dataclass(frozen=True, slots=True)
class _Made:
    """How one request ended."""

    request: Request
    documents: tuple[Document, ...] = ()
    error: Permanent | Transient | Unavailable | None = None


_log = structlog.get_logger(__name__)

_Failed = tuple[Request | None, Permanent]
"""A bad request (None: the message itself has to stand for it), and why."""


class GenerateConsumer:
    """Makes the items of each message's requests, and returns when the sink has made them durable.

    A request that names a package goes to the generator that `packages` gives for it (canonical package
    name → name in `generators`), any other to the generator named `default`. All items go in `collection`, where
    there is one, unless their request names another. With `any_object` an object of a form that nobody knows is a
    request too; with `copies` assets are copied before their items are put.
    """

    def __init__(
        self,
        *,
        reader: Reader,
        generators: Mapping[str, Generator],
        packages: Mapping[str, str],
        default: str | None,
        sink: Sink,
        metrics: Metrics,
        collection: str | None = None,
        any_object: bool = False,
        copies: AssetCopies | None = None,
    ) -> None:
        self._reader = reader
        self._collection = collection
        self._any_object = any_object
        self._copies = copies
        self._generators = generators
        self._packages = packages
        self._default = default
        self._sink = sink
        self._metrics = metrics

    async def handle(self, message: Message) -> None:
        """Generate what the message asks for, and put it.

        What could be made is put before anything is raised. `Unavailable`, else `Transient`, when a
        request failed in such a way: all of the message comes again, and putting twice is harmless.
        Otherwise `Rejected` with each bad request in a form that can be sent again (or the plain error,
        when the message holds nothing else). A request whose items the sink refused is a bad one: this
        queue takes requests, so that is what makes the items again once the cause is mended.
        """
        with message.in_flight.working() as done:
            async with self._reader.requests(message, any_object=self._any_object) as asked:
                await self._make_all(asked, message.in_flight, done)

    async def ping(self) -> None:
        """Raise Unavailable when the reader, the sink or a generator cannot work."""
        await self._reader.ping()
        await self._sink.ping()
        if self._copies is not None:
            await self._copies.ping()
        for name in dict.fromkeys([*self._packages.values(), *([self._default] if self._default else [])]):
            await self._generators[name].ping()

    async def _make_all(self, asked: Requests, in_flight: InFlight, done: Callable[[], None]) -> None:
        left = len(asked.requests)

        def generated() -> None:
            nonlocal left
            left -= 1
            if not left:
                done()

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._make(request, generated)) for request in asked.requests]
        made = [task.result() for task in tasks]
        failed: list[_Failed] = []
        documents = [document for each in made for document in each.documents]
        if documents:
            try:
                await self._sink.put(documents, in_flight)
            except Rejected as error:
                failed += _refused(error.refusals, made)
        _raise_if_unfinished(made)
        failed += [(each.request, each.error) for each in made if isinstance(each.error, Permanent)]
        if failed and asked.alone:
            raise failed[0][1]
        bad = [Refusal(error, resendable(request.body) if request else None) for request, error in failed]
        if refusals := (*asked.refusals, *bad):
            raise Rejected(refusals)

    async def _make(self, request: Request, generated: Callable[[], None]) -> _Made:
        name = "none"
        try:
            try:
                name = self._generator_for(request)
                items = await self._generate(name, self._placed(request))
            finally:
                generated()
            items = await self._with_copies(items, request)
        except (Permanent, Transient, Unavailable) as error:
            if isinstance(error, Permanent) and error.collection is None:
                error.collection = request.collection_id
            self._metrics.items_generated.labels(name, error.error_class).inc()
            return _Made(request, error=error)
        self._metrics.items_generated.labels(name, "ok").inc(len(items))
        return _Made(request, tuple(Document("item", item, request.version, request.origin) for item in items))

    async def _with_copies(self, items: Sequence[dict[str, Any]], request: Request) -> Sequence[dict[str, Any]]:
        if self._copies is None:
            return items
        try:
            return await self._copies.copied(items)
        except StacworkerError:
            raise
        except Exception as error:
            _log.exception("copies.unexpected_error", origin=request.origin)
            text = f"copying assets failed unexpectedly for {request.origin}: {type(error).__name__}: {error}"
            raise Transient(text, error_class="unexpected") from error

    def _placed(self, request: Request) -> Request:
        """Return the request with the collection that its items go in."""
        if self._collection is None or request.collection_id is not None:
            return request
        return replace(request, collection_id=self._collection)

    async def _generate(self, name: str, request: Request) -> Sequence[dict[str, Any]]:
        """Return a request's items; a generator may be a class of the user's, and raise anything."""
        try:
            with tracing.span(f"generate {name}", stacworker__generator=name) as span:
                try:
                    return await self._generators[name].generate(request)
                except StacworkerError as error:
                    tracing.tell(span, error)
                    raise
        except StacworkerError:
            raise
        except Exception as error:
            _log.exception("generator.unexpected_error", generator=name, origin=request.origin)
            text = f"generator {name!r} failed unexpectedly for {request.origin}: {type(error).__name__}: {error}"
            raise Transient(text, error_class="unexpected") from error

    def _generator_for(self, request: Request) -> str:
        """Return the name of the generator; raise Permanent when there is none for this request."""
        if request.generator is not None:
            package = canonicalize_name(requested_package(request.generator, request.origin).name)
            if package in self._packages:
                return self._packages[package]
            allowed = ", ".join(sorted(self._packages)) or "none"
            raise Permanent(
                f"{request.origin}: package {package} is not allowed; allowed: {allowed} (generators.….packages)",
                error_class="package_not_allowed",
            )
        if self._default is None:
            raise Permanent(
                f"{request.origin}: the request names no stactools package, and this consumer has no generator "
                "for such requests: set its `generator`, or send an ItemRequest",
                error_class="no_generator",
            )
        return self._default


def _refused(refusals: Sequence[Refusal], made: Sequence[_Made]) -> list[_Failed]:
    """Return the requests whose items the sink refused, each once."""
    source = {resendable(document.body): number for number, each in enumerate(made) for document in each.documents}
    found: dict[int | None, list[Permanent]] = {}
    for refusal in refusals:
        # An item without a text of its own (it is too large) could be anybody's.
        number = 0 if len(made) == 1 else source.get(refusal.body) if refusal.body else None
        found.setdefault(number, []).append(refusal.error)
    return [(None if number is None else made[number].request, _one(errors)) for number, errors in found.items()]


def _one(errors: Sequence[Permanent]) -> Permanent:
    """Return one error for all items of a request that were refused."""
    first = errors[0]
    if len(errors) == 1:
        return first
    return Permanent(
        f"{len(errors)} items of this request were refused, the first: {first.reason}",
        error_class=first.error_class,
        collection=first.collection,
        item_id=first.item_id,
    )


def _raise_if_unfinished(made: Sequence[_Made]) -> None:
    """Raise when a request may yet succeed: the error that says most, with how many there are."""
    errors: list[StacworkerError] = [each.error for each in made if isinstance(each.error, Unavailable)]
    errors += [each.error for each in made if isinstance(each.error, Transient)]
    if not errors:
        return
    if len(made) > 1 and isinstance(errors[0], Transient):
        reason = f"{len(errors)} of {len(made)} requests failed, the first: {errors[0].reason}"
        raise Transient(reason, error_class=errors[0].error_class) from errors[0]
    raise errors[0]
