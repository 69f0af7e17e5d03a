"""Sinks that pass items on instead of loading them: to an SNS topic, an SQS queue or objects in S3.

What is published is the item's JSON, with nothing around it. Its version does not travel with it:
whoever receives it goes by the time of publishing. Each sink is given a client of its service, whose
connections bound how much goes out at once.
"""

from __future__ import annotations

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, ClassVar, Self

import botocore.exceptions
import orjson

from stacworker.api import Document
from stacworker.aws import error_code, translated
from stacworker.envelope.locations import segment
from stacworker.errors import ConfigError, Permanent, StacworkerError, Transient, Unavailable
from stacworker.inflight import InFlight
from stacworker.load.merge import Merger, Outcome
from stacworker.load.refusals import BadDocument, raise_refused

REQUEST_MAX_TEXTS = 10
REQUEST_MAX_BYTES = 262_144
"""All messages of one request: what SNS allows, and SQS too before August 2025."""

SNS_MAX_BYTES = 262_144
"""One message: https://docs.aws.amazon.com/sns/latest/api/API_PublishBatch.html"""

SQS_MAX_BYTES = 1_048_576
"""One message; a queue may be set to take less, and then refuses it itself:
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html"""

S3_MAX_KEY_BYTES = 1024
"""https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html"""

_S3_AT_ONCE = 32

# What SQS and SNS call the sender's fault although the same message may well pass later.
_PASSING = re.compile(r"throttl|overlimit|denied|kms", re.IGNORECASE)


class _MessageSink(ABC):
    """What SNS and SQS share: items of concurrent puts go out together."""

    dependency: ClassVar[str]
    max_bytes: ClassVar[int]

    def __init__(self, client: Any, target: str, *, linger_s: float = 0.02) -> None:
        if target.endswith(".fifo"):
            raise ConfigError(f"output {target}: FIFO targets are not supported, items are not made in order")
        self._client = client
        self._target = target
        self._merger = Merger(self._send, max_texts=REQUEST_MAX_TEXTS, max_bytes=REQUEST_MAX_BYTES, linger_s=linger_s)

    async def __aenter__(self) -> Self:
        await self._merger.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._merger.__aexit__(kind, error, traceback)

    async def put(self, documents: Sequence[Document], in_flight: InFlight) -> None:  # noqa: ARG002 - a Sink's
        """Publish all items; return when the service has taken them. Raises as `api.Sink` says."""
        good: list[Document] = []
        texts: list[bytes] = []
        refused: list[BadDocument] = []
        for document in documents:
            try:
                texts.append(self._text(document))
                good.append(document)
            except Permanent as error:
                refused.append((document, error))
        refused += _refused(good, await self._merger.put(texts))
        raise_refused(refused, of=len(documents))

    def _text(self, document: Document) -> bytes:
        text = _item_json(document)
        # The two characters that JSON leaves as they are and SQS does not take.
        text = text.replace(b"\xef\xbf\xbe", b"\\ufffe").replace(b"\xef\xbf\xbf", b"\\uffff")
        if len(text) > self.max_bytes:
            raise Permanent(
                f"{_name(document)} has {len(text):,} bytes and {self._target} takes {self.max_bytes:,}; "
                "use output: load or an s3:// output",
                error_class="too_large",
                **_ids(document),
            )
        return text

    async def _send(self, texts: Sequence[bytes]) -> list[Outcome]:
        with _reaching(self.dependency, f"publishing to {self._target}"):
            answer = await self._request([text.decode() for text in texts])
        outcomes: list[Outcome] = [
            Transient(f"{self._target} gave no answer for a message", error_class=f"{self.dependency}_failed")
        ] * len(texts)
        for entry in answer.get("Successful", ()):
            outcomes[int(entry["Id"])] = None
        for entry in answer.get("Failed", ()):
            outcomes[int(entry["Id"])] = self._failure(entry)
        return outcomes

    def _failure(self, entry: Mapping[str, Any]) -> StacworkerError:
        reason = f"publishing to {self._target}: {entry.get('Code')}: {entry.get('Message', 'no message')}"
        if entry.get("SenderFault") and not _PASSING.search(str(entry.get("Code"))):
            return Permanent(reason, error_class=f"{self.dependency}_refused")
        return Transient(reason, error_class=f"{self.dependency}_failed")

    @abstractmethod
    async def _request(self, texts: Sequence[str]) -> Mapping[str, Any]:
        """Send texts in one request, with their positions as ids; return the answer."""

    @abstractmethod
    async def ping(self) -> None:
        """Raise `Unavailable` when the target does not answer."""


class SnsSink(_MessageSink):
    """Publishes items to a topic (`sns:PublishBatch`); `ping` needs `sns:GetTopicAttributes`."""

    dependency = "sns"
    max_bytes = SNS_MAX_BYTES

    async def _request(self, texts: Sequence[str]) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = await self._client.publish_batch(
            TopicArn=self._target,
            PublishBatchRequestEntries=[{"Id": str(n), "Message": text} for n, text in enumerate(texts)],
        )
        return answer

    async def ping(self) -> None:
        """Raise `Unavailable` when the topic does not answer."""
        with _reaching("sns", f"asking for topic {self._target}"):
            await self._client.get_topic_attributes(TopicArn=self._target)


class SqsSink(_MessageSink):
    """Sends items to a queue (`sqs:SendMessage`); `ping` needs `sqs:GetQueueAttributes`."""

    dependency = "sqs"
    max_bytes = SQS_MAX_BYTES

    async def _request(self, texts: Sequence[str]) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = await self._client.send_message_batch(
            QueueUrl=self._target,
            Entries=[{"Id": str(n), "MessageBody": text} for n, text in enumerate(texts)],
        )
        return answer

    async def ping(self) -> None:
        """Raise `Unavailable` when the queue does not answer."""
        with _reaching("sqs", f"asking for queue {self._target}"):
            await self._client.get_queue_attributes(QueueUrl=self._target, AttributeNames=["QueueArn"])


class S3Sink:
    """Writes each item as an object `<prefix><collection>/<id>.json` (`s3:PutObject`).

    Odd characters in the names are percent-encoded. The last writer of a key wins. `ping` needs
    `s3:ListBucket`.
    """

    def __init__(self, client: Any, bucket: str, prefix: str = "") -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix

    async def put(self, documents: Sequence[Document], in_flight: InFlight) -> None:  # noqa: ARG002 - a Sink's
        """Write all items; return when S3 has them. Raises as `api.Sink` says."""
        refused: list[BadDocument] = []
        for start in range(0, len(documents), _S3_AT_ONCE):
            some = documents[start : start + _S3_AT_ONCE]
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._write(document)) for document in some]
            refused += _refused(some, [task.result() for task in tasks])
        raise_refused(refused, of=len(documents))

    async def ping(self) -> None:
        """Raise `Unavailable` when the bucket does not answer."""
        with _reaching("s3", f"asking for bucket {self._bucket}"):
            await self._client.head_bucket(Bucket=self._bucket)

    async def _write(self, document: Document) -> Outcome:
        try:
            text = _item_json(document)
            key = self._key(document)
            with translated("s3", f"writing s3://{self._bucket}/{key}"):
                await self._client.put_object(
                    Bucket=self._bucket, Key=key, Body=text, ContentType="application/geo+json"
                )
        except Permanent as error:
            cause = error.__cause__
            if isinstance(cause, botocore.exceptions.ClientError) and error_code(cause) == "NoSuchBucket":
                return Unavailable(error.reason, dependency="s3", error_class="bucket_missing")
            return error
        except StacworkerError as error:
            return error
        return None

    def _key(self, document: Document) -> str:
        names = [document.body.get("collection"), document.body.get("id")]
        if not all(isinstance(name, str) and name for name in names):
            raise Permanent(
                f"{_name(document)} cannot be written to S3 without an id and a collection ({document.origin})",
                error_class="invalid_item",
                **_ids(document),
            )
        collection, item_id = (segment(str(name)) for name in names)
        key = f"{self._prefix}{collection}/{item_id}.json"
        if len(key.encode()) > S3_MAX_KEY_BYTES:
            raise Permanent(
                f"{_name(document)} would need a key of {len(key.encode()):,} bytes, S3 takes {S3_MAX_KEY_BYTES:,}",
                error_class="too_large",
                **_ids(document),
            )
        return key


@contextmanager
def _reaching(dependency: str, doing: str) -> Iterator[None]:
    """Translate errors; a request refused as a whole is about the target, not about one item."""
    try:
        with translated(dependency, doing):
            yield
    except Permanent as error:
        raise Unavailable(error.reason, dependency=dependency, error_class=error.error_class) from error


def _item_json(document: Document) -> bytes:
    if document.kind != "item":
        raise Permanent(
            f"a {document.kind} cannot be published, only items can ({document.origin})",
            error_class="not_an_item",
        )
    try:
        return orjson.dumps(document.body)
    except TypeError as error:
        raise Permanent(
            f"{_name(document)} cannot be written as JSON: {error} ({document.origin})",
            error_class="invalid_item",
            **_ids(document),
        ) from error


def _refused(documents: Sequence[Document], outcomes: Sequence[Outcome]) -> list[BadDocument]:
    """Return what was refused for good; raise what may yet succeed, an outage first."""
    passing = [error for error in outcomes if error is not None and not isinstance(error, Permanent)]
    if passing:
        raise min(passing, key=lambda error: not isinstance(error, Unavailable)).with_traceback(None)
    return [
        (document, _about(document, error))
        for document, error in zip(documents, outcomes, strict=True)
        if isinstance(error, Permanent)
    ]


def _about(document: Document, error: Permanent) -> Permanent:
    if error.item_id is not None:
        return error
    return Permanent(
        f"{_name(document)}: {error.reason} ({document.origin})", error_class=error.error_class, **_ids(document)
    )


def _ids(document: Document) -> dict[str, str | None]:
    found = {"collection": document.body.get("collection"), "item_id": document.body.get("id")}
    return {name: value if isinstance(value, str) else None for name, value in found.items()}


def _name(document: Document) -> str:
    return f"item {document.body.get('id')!r} of collection {document.body.get('collection')!r}"
