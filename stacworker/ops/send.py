"""Send messages to a queue: in batches, several at once, the failed ones again."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from stacworker.aws import NO_ACCESS, translated
from stacworker.errors import ConfigError, Permanent, Unavailable
from stacworker.ops.ahead import read_ahead
from stacworker.ops.outgoing import MAX_MESSAGE_BYTES, Outgoing, Unsent

BATCH_MESSAGES = 10
BATCHES_IN_FLIGHT = 8
ATTEMPTS = 5
BACKOFF_S = 0.2

Found = Outgoing | Unsent


@dataclass(slots=True)
class Report:
    """What became of the messages; `stopped` says why the rest was not tried, where it was not."""

    sent: int = 0
    unsent: list[Unsent] = field(default_factory=list)
    stopped: str | None = None

    @property
    def complete(self) -> bool:
        """True when every message was sent."""
        return not self.unsent and self.stopped is None


async def send(
    client: Any,
    queue_url: str,
    messages: Iterable[Found],
    *,
    group_id: str | None = None,
    on_progress: Callable[[Report], None] = lambda _: None,
) -> Report:
    """Send all messages with an SQS client and say what became of them; nothing is dropped silently.

    Sending is at least once: a batch whose answer got lost is sent again. A FIFO queue gets one batch
    at a time, in order, with deduplication ids made from each message's origin and body, so that the same
    command within five minutes sends nothing twice. Raises ConfigError when the queue does not exist or
    `group_id` does not fit it, Unavailable when SQS is away before anything was sent.
    """
    sender = _Sender(client, queue_url, await _max_bytes(client, queue_url, group_id), group_id)
    slots = asyncio.Semaphore(1 if group_id else BATCHES_IN_FLIGHT)
    report = sender.report

    async def work(batch: Sequence[Outgoing]) -> None:
        try:
            await sender.send(batch)
            on_progress(report)
        finally:
            slots.release()

    async with asyncio.TaskGroup() as group, aclosing(_batches(messages, sender.max_bytes)) as batches:
        async for batch, unsent in batches:
            report.unsent += unsent
            await slots.acquire()
            if sender.hopeless is not None:
                origin = batch[0].origin if batch else "there"
                report.stopped = f"{sender.hopeless}; nothing was tried from {origin} on"
                break
            group.create_task(work(batch))
    on_progress(report)
    return report


async def _max_bytes(client: Any, queue_url: str, group_id: str | None) -> int:
    """Return what the queue takes, for one message and for one batch."""
    if queue_url.endswith(".fifo") and not group_id:
        raise ConfigError(f"{queue_url} is a FIFO queue: give --group-id")
    if group_id and not queue_url.endswith(".fifo"):
        raise ConfigError(f"{queue_url} is not a FIFO queue: leave --group-id out")
    try:
        with translated("sqs", f"looking at {queue_url}"):
            answer = await client.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["MaximumMessageSize"])
    except Permanent as error:
        raise ConfigError(error.reason) from error
    except Unavailable as error:
        if error.error_class != "access_denied":
            raise
        return MAX_MESSAGE_BYTES  # who may send need not be allowed to look
    return min(int(answer.get("Attributes", {}).get("MaximumMessageSize", MAX_MESSAGE_BYTES)), MAX_MESSAGE_BYTES)


async def _batches(
    messages: Iterable[Found], max_bytes: int
) -> AsyncGenerator[tuple[list[Outgoing], list[Unsent]], None]:
    """Yield batches of what is ready (a slow reader makes small ones, never late ones), and what cannot go."""
    batch: list[Outgoing] = []
    unsent: list[Unsent] = []
    size_bytes = 0
    async with aclosing(read_ahead(messages)) as ready:
        async for found in ready:
            if found is None:  # nothing more just now
                if batch or unsent:
                    yield batch, unsent
                    batch, unsent, size_bytes = [], [], 0
                continue
            if isinstance(found, Unsent):
                unsent.append(found)
                continue
            if found.size_bytes > max_bytes:
                text = f"{found.size_bytes:,} bytes, this queue takes {max_bytes:,}: put it in S3 and send its URL"
                unsent.append(Unsent(found.origin, text))
                continue
            if len(batch) == BATCH_MESSAGES or size_bytes + found.size_bytes > max_bytes:
                yield batch, unsent
                batch, unsent, size_bytes = [], [], 0
            batch.append(found)
            size_bytes += found.size_bytes
    if batch or unsent:
        yield batch, unsent


class _Sender:
    """Sends one batch, and its failed entries again."""

    def __init__(self, client: Any, queue_url: str, max_bytes: int, group_id: str | None) -> None:
        self.report = Report()
        self.max_bytes = max_bytes
        self.hopeless: str | None = None
        self._client = client
        self._queue_url = queue_url
        self._group_id = group_id

    async def send(self, batch: Sequence[Outgoing]) -> None:
        """Send a batch; what cannot be sent stands in the report, with the reason."""
        pending = dict(enumerate(batch))
        reasons: dict[int, str] = {}
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(random.uniform(0, BACKOFF_S * 2**attempt))  # noqa: S311 - jitter
            try:
                with translated("sqs", f"sending to {self._queue_url}"):
                    answer = await self._client.send_message_batch(
                        QueueUrl=self._queue_url,
                        Entries=[self._entry(number, message) for number, message in pending.items()],
                    )
            except Permanent as error:
                self.hopeless = error.reason
            except Unavailable as error:
                reasons = dict.fromkeys(pending, error.reason)
                if error.error_class in NO_ACCESS:
                    self.hopeless = error.reason
            else:
                pending, reasons = self._take(answer, pending)
            if not pending or self.hopeless is not None:
                break
        self.report.unsent += [
            Unsent(message.origin, reasons.get(number) or self.hopeless or "SQS gave no reason")
            for number, message in pending.items()
        ]
        if self._group_id and self.report.unsent and self.hopeless is None:
            self.hopeless = "a message of the group was not sent, and those after it must not overtake it"

    def _take(self, answer: Any, pending: dict[int, Outgoing]) -> tuple[dict[int, Outgoing], dict[int, str]]:
        """Count what was sent; return what to try again, and why it failed."""
        failed = {int(entry["Id"]): entry for entry in answer.get("Failed", [])}
        reasons = {n: f"{entry.get('Code')}: {entry.get('Message', '')}".rstrip(": ") for n, entry in failed.items()}
        for number, entry in failed.items():
            if entry.get("SenderFault"):
                self.report.unsent.append(Unsent(pending[number].origin, reasons[number]))
        self.report.sent += len(pending) - len(failed)
        return {n: pending[n] for n, entry in failed.items() if not entry.get("SenderFault")}, reasons

    def _entry(self, number: int, message: Outgoing) -> dict[str, str]:
        entry = {"Id": str(number), "MessageBody": message.body}
        if self._group_id:
            digest = hashlib.sha256(f"{message.origin}\0{message.body}".encode()).hexdigest()
            entry |= {"MessageGroupId": self._group_id, "MessageDeduplicationId": digest}
        return entry
