"""The load consumer: what a queue's messages hold goes to the sink."""

from __future__ import annotations

import re
from dataclasses import replace
from urllib.parse import unquote

import structlog

from stacworker.api import Document, Message, Sink
from stacworker.envelope.forms import S3Removed
from stacworker.envelope.reader import Read, Reader, folded
from stacworker.errors import Permanent, Refusal, Rejected
from stacworker.inflight import InFlight
from stacworker.load.refusals import loadable
from stacworker.settings import DeletesSettings

_log = structlog.get_logger(__name__)


class LoadConsumer:
    """An `api.Consumer` for items, collections and, where enabled, deletes."""

    def __init__(self, *, reader: Reader, sink: Sink, deletes: DeletesSettings) -> None:
        self._reader = reader
        self._sink = sink
        self._delete_key = re.compile(deletes.key_pattern) if deletes.enabled else None

    async def handle(self, message: Message) -> None:
        """Load everything that a message holds; return when it is durable.

        Raises `Rejected` when some of it is bad and the rest is durable; the `Permanent` itself when the
        bad thing is all that the message holds, so that its body stays as it is; `Transient` or
        `Unavailable` when any of it may yet succeed.
        """
        async with self._reader.documents(message) as read:
            await self._load(read, message.in_flight)

    async def ping(self) -> None:
        """Raise `Unavailable` when objects cannot be fetched or the sink does not answer."""
        await self._reader.ping()
        await self._sink.ping()

    async def _load(self, read: Read, in_flight: InFlight) -> None:
        documents = list(read.documents)
        refusals = list(read.refusals)
        for removed in read.removed:
            try:
                documents += self._deletes(removed)
            except Permanent as error:
                refusals.append(Refusal(error))
        if documents:
            try:
                await self._sink.put(documents, in_flight)
            except Rejected as rejected:
                refusals += rejected.refusals
                if len(documents) == 1:
                    # The sink saw one document and does not know what else the message holds.
                    refusals[-1] = replace(refusals[-1], body=loadable(documents[0]))
        if not refusals:
            return
        if read.alone:
            raise refusals[0].error
        raise Rejected(folded(refusals))

    def _deletes(self, removed: S3Removed) -> list[Document]:
        """Return the delete that a removed object asks for: none where deletes are off."""
        if self._delete_key is None:
            _log.debug("delete.ignored", origin=str(removed.location))
            return []
        match = self._delete_key.fullmatch(removed.location.key)
        if match is None or not (match["collection"] and match["id"]):
            raise Permanent(
                f"{removed.location} was removed, but its key does not tell which item that is: "
                f"deletes.key_pattern {self._delete_key.pattern!r} does not match it",
                error_class="delete_key",
            )
        # Undoes the percent-encoding of the keys that S3Sink writes.
        body = {"collection": unquote(match["collection"]), "id": unquote(match["id"])}
        if any("\0" in name for name in body.values()):
            raise Permanent(
                f"{removed.location} was removed, but its key holds a NUL character, which no item's name does",
                error_class="delete_key",
            )
        return [Document("delete", body, removed.version, str(removed.location))]
