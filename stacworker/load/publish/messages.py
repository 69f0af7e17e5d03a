"""Items as messages: to an SNS topic or an SQS queue, those that arrive together in one request."""

from __future__ import annotations

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ClassVar, Self

from stacworker import tracing
from stacworker.api import Document
from stacworker.aws import translated
from stacworker.errors import ConfigError, Permanent, StacworkerError, Transient
from stacworker.inflight import InFlight
from stacworker.load.merge import Merger, Outcome
from stacworker.load.publish.items import ids_of, item_json, name_of, reaching, refused
from stacworker.load.publish.overflow import Overflow, attributes_of
from stacworker.load.refusals import BadDocument, raise_refused

REQUEST_MAX_TEXTS = 10
REQUEST_MAX_BYTES = 262_144
"""All messages of one request: what SNS allows, and SQS too before August 2025."""

SNS_MAX_BYTES = 262_144
"""One message: https://docs.aws.amazon.com/sns/latest/api/API_PublishBatch.html"""

SQS_MAX_BYTES = 1_048_576
"""One message; a queue may be set to take less, and then refuses it itself:
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html"""

# What SQS and SNS call the sender's fault although the same message may well pass later.
_PASSING = re.compile(r"throttl|overlimit|denied|kms", re.IGNORECASE)


_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class _Letter:
    """A message to send; its length is its size as SNS and SQS count it, attributes included."""

    text: bytes
    attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        parts = (len(name) + sum(map(len, value.values())) for name, value in self.attributes.items())
        return len(self.text) + sum(parts)

    @property
    def more(self) -> dict[str, Any]:
        """The entry's keys beside its text."""
        return {"MessageAttributes": self.attributes} if self.attributes else {}


class _MessageSink(ABC):
    """What SNS and SQS share: items of concurrent puts go out together, too large ones by way of `overflow`."""

    dependency: ClassVar[str]

    def __init__(
        self, client: Any, target: str, *, max_bytes: int, overflow: Overflow | None = None, linger_s: float = 0.02
    ) -> None:
        if target.endswith(".fifo"):
            raise ConfigError(f"output {target}: FIFO targets are not supported, items are not made in order")
        self._client = client
        self._target = target
        self._max_bytes = max_bytes
        self._overflow = overflow
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
        letters: list[_Letter] = []
        bad: list[BadDocument] = []
        for start in range(0, len(documents), _AT_ONCE):
            some = documents[start : start + _AT_ONCE]
            made = await asyncio.gather(*map(self._made, some))
            for document, letter in zip(some, made, strict=True):
                if isinstance(letter, Permanent):
                    bad.append((document, letter))
                elif isinstance(letter, StacworkerError):
                    raise letter
                else:
                    good.append(document)
                    letters.append(letter)
        bad += refused(good, await self._merger.put(letters))
        raise_refused(bad, of=len(documents))

    async def ping(self) -> None:
        """Raise `Unavailable` when the target, or the bucket for what is too large for it, does not answer."""
        await self._ping()
        if self._overflow is not None:
            await self._overflow.ping()

    async def _made(self, document: Document) -> _Letter | StacworkerError:
        try:
            return await self._letter(document)
        except StacworkerError as error:
            return error

    async def _letter(self, document: Document) -> _Letter:
        text = item_json(document)
        # The two characters that JSON leaves as they are and SQS does not take.
        text = text.replace(b"\xef\xbf\xbe", b"\\ufffe").replace(b"\xef\xbf\xbf", b"\\uffff")
        carried = tracing.carried()
        if len(letter := _Letter(text, carried)) <= self._max_bytes:
            return letter
        if self._overflow is None:
            advice = "set output_overflow: s3://bucket/prefix/, or use output: load or an s3:// output"
            raise self._too_large(document, len(text), advice)
        letter = _Letter(await self._overflow.put(document, text), {**attributes_of(len(text)), **carried})
        if len(letter) > self._max_bytes:
            raise self._too_large(document, len(letter), "its ids alone are too long for a message", "a pointer of ")
        return letter

    def _too_large(self, document: Document, size_bytes: int, advice: str, what: str = "") -> Permanent:
        sizes = f"has {what}{size_bytes:,} bytes and {self._target} takes {self._max_bytes:,}"
        return Permanent(f"{name_of(document)} {sizes}; {advice}", error_class="too_large", **ids_of(document))

    async def _send(self, letters: Sequence[_Letter]) -> list[Outcome]:
        with reaching(self.dependency, f"publishing to {self._target}"):
            answer = await self._request(letters)
        outcomes: list[Outcome] = [
            Transient(f"{self._target} gave no answer for a message", error_class=f"{self.dependency}_failed")
        ] * len(letters)
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
    async def _request(self, letters: Sequence[_Letter]) -> Mapping[str, Any]:
        """Send letters in one request, with their positions as ids; return the answer."""

    @abstractmethod
    async def _ping(self) -> None:
        """Raise `Unavailable` when the target does not answer."""


class SnsSink(_MessageSink):
    """Publishes items to a topic (`sns:PublishBatch`); `ping` needs `sns:GetTopicAttributes`."""

    dependency = "sns"

    def __init__(self, client: Any, target: str, *, overflow: Overflow | None = None, linger_s: float = 0.02) -> None:
        super().__init__(client, target, max_bytes=SNS_MAX_BYTES, overflow=overflow, linger_s=linger_s)

    async def _request(self, letters: Sequence[_Letter]) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = await self._client.publish_batch(
            TopicArn=self._target,
            PublishBatchRequestEntries=[
                {"Id": str(n), "Message": letter.text.decode(), **letter.more} for n, letter in enumerate(letters)
            ],
        )
        return answer

    async def _ping(self) -> None:
        with reaching("sns", f"asking for topic {self._target}"):
            await self._client.get_topic_attributes(TopicArn=self._target)


class SqsSink(_MessageSink):
    """Sends items to a queue (`sqs:SendMessage`); `ping` needs `sqs:GetQueueAttributes`."""

    dependency = "sqs"

    def __init__(self, client: Any, target: str, *, overflow: Overflow | None = None, linger_s: float = 0.02) -> None:
        super().__init__(client, target, max_bytes=SQS_MAX_BYTES, overflow=overflow, linger_s=linger_s)

    async def measure(self) -> None:
        """Learn how large a message the queue takes; `ping` does so too, since that can be changed at any time.

        Raises `Permanent` when SQS says that there is no such queue; `Unavailable`.
        """
        with translated("sqs", f"asking for queue {self._target}"):
            answer = await self._client.get_queue_attributes(
                QueueUrl=self._target, AttributeNames=["MaximumMessageSize"]
            )
            takes_bytes = int((answer.get("Attributes") or {}).get("MaximumMessageSize", SQS_MAX_BYTES))
        self._max_bytes = min(takes_bytes, SQS_MAX_BYTES)

    async def _request(self, letters: Sequence[_Letter]) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = await self._client.send_message_batch(
            QueueUrl=self._target,
            Entries=[
                {"Id": str(n), "MessageBody": letter.text.decode(), **letter.more} for n, letter in enumerate(letters)
            ],
        )
        return answer

    async def _ping(self) -> None:
        with reaching("sqs", f"asking for queue {self._target}"):
            await self.measure()
