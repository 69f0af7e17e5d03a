"""Documents into pgstac: items through the batcher, collections and deletes straight away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from stacworker.api import Document, Version
from stacworker.errors import Permanent
from stacworker.inflight import InFlight
from stacworker.load.batcher import Batcher
from stacworker.load.busy import until_free
from stacworker.load.prepare import Prepared, prepare, prepare_collection
from stacworker.load.refusals import BadDocument, raise_refused
from stacworker.metrics import OTHER, Metrics
from stacworker.settings import CollectionSettings

_YIELD_EVERY = 100


class Writes(Protocol):
    """What the sink needs of a catalogue (`load.pgstac.Catalogue`) besides the batcher's part.

    All raise `Permanent`, `Transient` (`Busy` among them) or `Unavailable`.
    """

    async def put_collection(self, body: dict[str, Any], version: Version | None = None) -> None:
        """Create or replace a collection, unless what is there has a greater version."""

    async def delete(self, collection: str, ids: Mapping[str, Version], *, max_concurrency: int) -> object:
        """Delete the items that are not newer than the versions given."""

    async def ping(self) -> None:
        """Raise `Unavailable` when the database does not answer."""


class PgstacSink:
    """An `api.Sink`: returns when everything is committed or superseded."""

    def __init__(
        self,
        catalogue: Writes,
        batcher: Batcher,
        settings_for: Callable[[str], CollectionSettings],
        metrics: Metrics,
    ) -> None:
        self._catalogue = catalogue
        self._batcher = batcher
        self._settings_for = settings_for
        self._metrics = metrics

    async def put(self, documents: Sequence[Document], in_flight: InFlight) -> None:
        """Load all documents: collections first, then items, then deletes.

        A delete and an item of the same id may come in any order, because their versions decide. Raises
        as `api.Sink` says.
        """
        prepared: list[tuple[Document, Prepared]] = []
        collections: list[tuple[Document, dict[str, Any]]] = []
        deletes: dict[str, list[Document]] = {}
        refused: list[BadDocument] = []
        for number, document in enumerate(documents, start=1):
            try:
                if document.kind == "item":
                    prepared.append((document, prepare(document)))
                elif document.kind == "collection":
                    collections.append((document, prepare_collection(document)))
                else:
                    deletes.setdefault(document.body["collection"], []).append(document)
            except Permanent as error:
                refused.append((document, error))
                self._count(document, error)
            if number % _YIELD_EVERY == 0:
                await asyncio.sleep(0)
        refused += await self._put_collections(collections)
        verdicts = await self._batcher.submit([item for _, item in prepared], in_flight)
        refused += [
            (document, error) for (document, _), error in zip(prepared, verdicts, strict=True) if error is not None
        ]
        for collection, of_collection in deletes.items():
            refused += await self._delete(collection, of_collection)
        raise_refused(refused, of=len(documents))

    async def ping(self) -> None:
        """Raise `Unavailable` when the database does not answer."""
        await self._catalogue.ping()

    async def _put_collections(self, collections: list[tuple[Document, dict[str, Any]]]) -> list[BadDocument]:
        refused = []
        for document, body in collections:
            try:
                await until_free(body["id"], partial(self._catalogue.put_collection, body, document.version))
            except Permanent as error:
                refused.append((document, error))
        return refused

    async def _delete(self, collection: str, documents: list[Document]) -> list[BadDocument]:
        ids: dict[str, Version] = {}
        for document in documents:
            item_id = document.body["id"]
            ids[item_id] = max(document.version, ids.get(item_id, document.version))
        slots = self._settings_for(collection).max_concurrency
        try:
            await until_free(collection, lambda: self._catalogue.delete(collection, ids, max_concurrency=slots))
        except Permanent as error:
            return [(document, error) for document in documents]
        return []

    def _count(self, document: Document, error: Permanent) -> None:
        if document.kind == "item":
            label = self._metrics.collection_label(error.collection) if error.collection else OTHER
            self._metrics.items_rejected.labels(label, error.error_class).inc()
