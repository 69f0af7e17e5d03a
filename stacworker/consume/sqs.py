"""One SQS queue: the calls the engine makes, and what their answers mean.

Errors leave as `Unavailable(dependency="sqs")` or `Permanent` (see `stacworker.aws.translated`); the
`Failed` entries of batch calls are returned, never raised.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson

from stacworker.api import Message
from stacworker.aws import translated
from stacworker.errors import Permanent
from stacworker.inflight import InFlight

BATCH = 10
"""Entries in one receive, delete, visibility change or send, at most."""
MAX_BODY_BYTES = 1_048_576
"""Body and attributes of one message, and of one batch of messages, at most."""

_CALL_TIMEOUT_S = 60.0
"""For a call with the client's own retries, other than a receive: longer than two of its read timeouts."""

_SYSTEM_ATTRIBUTES = ["ApproximateReceiveCount", "SentTimestamp", "MessageGroupId", "SequenceNumber"]
_LOST = frozenset({"ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidParameterValue", "InvalidIdFormat"})


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """What a queue says of itself at start."""

    arn: str
    fifo: bool
    visibility_timeout_s: int
    dead_letter_arn: str | None
    max_receive_count: int | None


@dataclass(frozen=True, slots=True)
class Failure:
    """One entry that a batch call refused. `lost`: the receipt handle is no longer ours."""

    code: str
    message: str
    lost: bool


_UNANSWERED = Failure("Unanswered", "the answer does not say that it was sent", lost=False)


@dataclass(frozen=True, slots=True)
class Letter:
    """One message to send: `attributes` in boto's form."""

    body: str
    attributes: Mapping[str, Mapping[str, Any]]
    group_id: str | None = None
    deduplication_id: str | None = None

    @property
    def size_bytes(self) -> int:
        """Size as SQS counts it."""
        return size_bytes(self.body, self.attributes)


class SqsQueue:
    """A queue behind one shared client."""

    def __init__(self, client: Any, url: str, name: str) -> None:
        self._client = client
        self.url = url
        self.name = name

    async def describe(self) -> QueueInfo:
        """Read the queue's attributes."""
        async with self._attributes("QueueArn", "VisibilityTimeout", "RedrivePolicy", "FifoQueue") as found:
            policy = _redrive_policy(found.get("RedrivePolicy"))
            return QueueInfo(
                arn=found.get("QueueArn", ""),
                fifo=found.get("FifoQueue", "false").lower() == "true" or self.url.endswith(".fifo"),
                visibility_timeout_s=int(found.get("VisibilityTimeout", 30)),
                dead_letter_arn=policy.get("deadLetterTargetArn"),
                max_receive_count=int(policy["maxReceiveCount"]) if policy.get("maxReceiveCount") else None,
            )

    async def depth(self) -> dict[str, int]:
        """Return the approximate number of messages by state."""
        states = {"visible": "", "in_flight": "NotVisible", "delayed": "Delayed"}
        names = {state: f"ApproximateNumberOfMessages{name}" for state, name in states.items()}
        async with self._attributes(*names.values()) as found:
            return {state: int(found.get(name, 0)) for state, name in names.items()}

    @asynccontextmanager
    async def _attributes(self, *names: str) -> AsyncIterator[dict[str, str]]:
        async with _understood(f"reading the attributes of queue {self.name}"):
            answer = await self._client.get_queue_attributes(QueueUrl=self.url, AttributeNames=list(names))
            yield answer.get("Attributes") or {}

    async def url_of(self, arn: str) -> str:
        """Return the URL of the queue with this ARN."""
        parts = arn.split(":")
        if len(parts) != 6:  # noqa: PLR2004 - arn:partition:sqs:region:account:name
            raise Permanent(f"{arn!r} is not the ARN of a queue", error_class="sqs_refused")
        async with _understood(f"looking up queue {arn}"):
            answer = await self._client.get_queue_url(QueueName=parts[5], QueueOwnerAWSAccountId=parts[4])
            return str(answer["QueueUrl"])

    async def receive(
        self, max_messages: int, *, wait_s: int, visibility_timeout_s: float, in_flight: InFlight
    ) -> list[Message]:
        """Receive up to 10 messages, waiting up to `wait_s` for the first.

        Never cancel this call: SQS may have handed messages out already. The client's read timeout ends it.
        """
        with translated("sqs", f"receiving from queue {self.name}"):
            answer = await self._client.receive_message(
                QueueUrl=self.url,
                MaxNumberOfMessages=max_messages,
                WaitTimeSeconds=wait_s,
                VisibilityTimeout=round(visibility_timeout_s),
                MessageSystemAttributeNames=_SYSTEM_ATTRIBUTES,
                MessageAttributeNames=["All"],
            )
            return [_message(raw, in_flight) for raw in answer.get("Messages") or ()]

    async def delete(self, handles: Mapping[str, str]) -> dict[str, Failure]:
        """Delete up to 10 messages (id → receipt handle); return the refused ones."""
        ids = list(handles)
        entries = [{"Id": str(n), "ReceiptHandle": handles[id_]} for n, id_ in enumerate(ids)]
        async with _understood(f"deleting from queue {self.name}"):
            answer = await self._client.delete_message_batch(QueueUrl=self.url, Entries=entries)
            return _failures(answer, ids)

    async def change_visibility(self, entries: Mapping[str, tuple[str, float]]) -> dict[str, Failure]:
        """Set when up to 10 messages (id → receipt handle, seconds from now) are visible; return the refused."""
        ids = list(entries)
        changes = [
            {"Id": str(n), "ReceiptHandle": handle, "VisibilityTimeout": max(0, min(round(seconds), 43_200))}
            for n, (handle, seconds) in enumerate(entries.values())
        ]
        async with _understood(f"changing visibility in queue {self.name}"):
            answer = await self._client.change_message_visibility_batch(QueueUrl=self.url, Entries=changes)
            return _failures(answer, ids)

    async def send(self, letters: Sequence[Letter]) -> dict[int, Failure]:
        """Send messages in as few calls as sizes allow; return by position those that SQS has not taken."""
        failed: dict[int, Failure] = {}
        for batch in _batches(letters):
            entries = []
            for position in batch:
                letter = letters[position]
                entry: dict[str, Any] = {"Id": str(position), "MessageBody": letter.body}
                if letter.attributes:
                    entry["MessageAttributes"] = dict(letter.attributes)
                if letter.group_id is not None:
                    entry["MessageGroupId"] = letter.group_id
                if letter.deduplication_id is not None:
                    entry["MessageDeduplicationId"] = letter.deduplication_id
                entries.append(entry)
            async with _understood(f"sending to queue {self.name}"):
                answer = await self._client.send_message_batch(QueueUrl=self.url, Entries=entries)
                # Whoever sends deletes something then: only a message that SQS acknowledges by name is sent.
                taken = {entry["Id"] for entry in answer.get("Successful") or ()}
                refused = {entry["Id"]: _failure(entry) for entry in answer.get("Failed") or ()}
            for entry in entries:
                if entry["Id"] not in taken:
                    failed[int(entry["Id"])] = refused.get(entry["Id"], _UNANSWERED)
        return failed


@asynccontextmanager
async def _understood(doing: str) -> AsyncIterator[None]:
    """Translate the errors of a call, and of making sense of its answer; end it when it never returns."""
    with translated("sqs", doing):
        try:
            async with asyncio.timeout(_CALL_TIMEOUT_S):
                yield
        except TimeoutError:
            raise TimeoutError(f"no answer within {_CALL_TIMEOUT_S:g} s") from None


def size_bytes(body: str, attributes: Mapping[str, Mapping[str, Any]]) -> int:
    """Return the size of a message as SQS counts it: body, attribute names, types and values."""
    size = len(body) if body.isascii() else len(body.encode("utf-8", "replace"))
    for name, value in attributes.items():
        size += len(name.encode()) + len(value["DataType"])
        size += len(str(value.get("StringValue", "")).encode("utf-8", "replace")) + len(value.get("BinaryValue", b""))
    return size


def _batches(letters: Sequence[Letter]) -> list[list[int]]:
    batches: list[list[int]] = []
    size = 0
    for position, letter in enumerate(letters):
        if not batches or len(batches[-1]) == BATCH or size + letter.size_bytes > MAX_BODY_BYTES:
            batches.append([])
            size = 0
        batches[-1].append(position)
        size += letter.size_bytes
    return batches


def _message(raw: dict[str, Any], in_flight: InFlight) -> Message:
    system = raw.get("Attributes") or {}
    return Message(
        id=raw["MessageId"],
        body=raw.get("Body", ""),
        receipt_handle=raw["ReceiptHandle"],
        receive_count=int(system.get("ApproximateReceiveCount", 1)),
        sent_at=int(system.get("SentTimestamp", 0)) / 1000,
        attributes=raw.get("MessageAttributes") or {},
        group_id=system.get("MessageGroupId"),
        sequence=system.get("SequenceNumber", ""),
        in_flight=in_flight,
    )


def _failures(answer: dict[str, Any], ids: list[str]) -> dict[str, Failure]:
    return {ids[int(entry["Id"])]: _failure(entry) for entry in answer.get("Failed") or ()}


def _failure(entry: dict[str, Any]) -> Failure:
    code = str(entry.get("Code", "Unknown")).rsplit(".", 1)[-1]
    return Failure(
        code=code,
        message=str(entry.get("Message", "")),
        lost=code in _LOST or (bool(entry.get("SenderFault")) and "hrottl" not in code),
    )


def _redrive_policy(text: str | None) -> dict[str, Any]:
    if not text:
        return {}
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
