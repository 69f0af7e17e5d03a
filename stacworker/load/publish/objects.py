"""Items as objects in S3, one object an item."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from stacworker.api import Document
from stacworker.errors import StacworkerError
from stacworker.inflight import InFlight
from stacworker.load.merge import Outcome
from stacworker.load.publish.bucket import GEOJSON, Bucket
from stacworker.load.publish.items import item_json, names_of, refused
from stacworker.load.refusals import BadDocument, raise_refused

_AT_ONCE = 32


class S3Sink:
    """Writes each item as an object `<prefix><collection>/<id>.json`, odd characters percent-encoded."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    async def put(self, documents: Sequence[Document], in_flight: InFlight) -> None:  # noqa: ARG002 - a Sink's
        """Write all items; return when S3 has them. Raises as `api.Sink` says."""
        bad: list[BadDocument] = []
        for start in range(0, len(documents), _AT_ONCE):
            some = documents[start : start + _AT_ONCE]
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._write(document)) for document in some]
            bad += refused(some, [task.result() for task in tasks])
        raise_refused(bad, of=len(documents))

    async def ping(self) -> None:
        """Raise `Unavailable` when the bucket does not answer."""
        await self._bucket.ping()

    async def _write(self, document: Document) -> Outcome:
        try:
            text = item_json(document)
            key = self._bucket.key(document, *names_of(document), ending=".json")
            await self._bucket.write(key, text, GEOJSON)
        except StacworkerError as error:
            return error
        return None
