"""Items as lines of objects in S3: those that arrive together become one object of a collection."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from stacworker.api import Document
from stacworker.errors import Permanent, StacworkerError
from stacworker.inflight import InFlight
from stacworker.load.merge import Merger, Outcome
from stacworker.load.publish.bucket import Bucket
from stacworker.load.publish.items import item_json, names_of, refused
from stacworker.load.refusals import BadDocument, raise_refused

MAX_LINES = 1000
MAX_BYTES = 16_000_000
"""Lines and bytes of one object; an item that is larger alone is an object alone."""

LINGER_S = 0.5
"""An item waits this long for others."""

_WRITES_AT_ONCE = 8
_NDJSON = "application/x-ndjson"


@dataclass(frozen=True, slots=True)
class _Line:
    document: Document
    text: bytes

    def __len__(self) -> int:
        return len(self.text) + 1

    @property
    def collection(self) -> str:
        return str(self.document.body["collection"])


class NdjsonSink:
    """Writes `<prefix><collection>/<YYYY/MM/DD>/<SHA-256 of the contents, 32 hex digits>.ndjson`.

    The date is that of writing, in UTC. Of two states of an item in one object only the newest is written: to who
    reads the object they would be of one time. Holds no more than the puts that wait bring, and copies of at most
    eight objects.
    """

    def __init__(
        self,
        bucket: Bucket,
        *,
        linger_s: float = LINGER_S,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._bucket = bucket
        self._now = now
        self._writing = asyncio.Semaphore(_WRITES_AT_ONCE)
        self._merger = Merger(self._send, max_texts=MAX_LINES, max_bytes=MAX_BYTES, linger_s=linger_s)

    async def __aenter__(self) -> Self:
        await self._merger.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._merger.__aexit__(kind, error, traceback)

    async def put(self, documents: Sequence[Document], in_flight: InFlight) -> None:  # noqa: ARG002 - a Sink's
        """Write all items; return when S3 has them. Raises as `api.Sink` says."""
        bad: list[BadDocument] = []
        lines: list[_Line] = []
        size_bytes = 0
        for document in documents:
            try:
                line = self._line(document)
            except Permanent as error:
                bad.append((document, error))
                continue
            lines.append(line)
            size_bytes += len(line)
            if len(lines) == MAX_LINES or size_bytes >= MAX_BYTES:
                bad += await self._put(lines)
                lines, size_bytes = [], 0
        bad += await self._put(lines)
        raise_refused(bad, of=len(documents))

    async def ping(self) -> None:
        """Raise `Unavailable` when the bucket does not answer."""
        await self._bucket.ping()

    def _line(self, document: Document) -> _Line:
        text = item_json(document)
        collection, _ = names_of(document)
        self._key(document, collection, b"")  # so that an impossible one is refused alone
        return _Line(document, text)

    async def _put(self, lines: Sequence[_Line]) -> list[BadDocument]:
        return refused([line.document for line in lines], await self._merger.put(lines))

    async def _send(self, lines: Sequence[_Line]) -> list[Outcome]:
        """Write an object a collection; each line's outcome is that of its collection's object."""
        of_collection: dict[str, list[_Line]] = {}
        for line in lines:
            of_collection.setdefault(line.collection, []).append(line)
        async with asyncio.TaskGroup() as group:
            tasks = {name: group.create_task(self._write(some)) for name, some in of_collection.items()}
        return [tasks[line.collection].result() for line in lines]

    async def _write(self, lines: Sequence[_Line]) -> Outcome:
        async with self._writing:
            data = b"".join(line.text + b"\n" for line in _newest(lines))
            key = self._key(lines[0].document, lines[0].collection, data)
            try:
                await self._bucket.write(key, data, _NDJSON)
            except StacworkerError as error:
                return error
            return None

    def _key(self, document: Document, collection: str, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()[:32]
        return self._bucket.key(document, collection, ending=f"/{self._now():%Y/%m/%d}/{digest}.ndjson")


def _newest(lines: Iterable[_Line]) -> Iterable[_Line]:
    """Return the lines of a collection without those that a newer one of the same id replaces."""
    found: dict[str, _Line] = {}
    for line in lines:
        item_id = line.document.body["id"]
        if item_id not in found or found[item_id].document.version <= line.document.version:
            found[item_id] = line
    return found.values()
