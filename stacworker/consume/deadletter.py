"""Dead letters: the message with its reason, in a form that can be sent again.

The attribute names are part of the public interface. SQS allows ten attributes; ours come first, the
message's own fill what is left.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import stamina

from stacworker.api import SENT_AT, Message
from stacworker.consume.sqs import MAX_BODY_BYTES, Letter, SqsQueue
from stacworker.errors import Permanent, Refusal, Rejected, Transient, Unavailable, clip_reason

_MAX_ATTRIBUTES = 10
_PREFIX = "stacworker_"
_KEPT = ("DataType", "StringValue", "BinaryValue")
_ILLEGAL = re.compile("[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")
"""What SQS refuses in a body."""


class DeadLetters:
    """Sends to one dead-letter queue what one consumer could not use."""

    def __init__(
        self, queue: SqsQueue, *, consumer: str, source_queue: str, fifo: bool, now: Callable[[], float]
    ) -> None:
        self.queue = queue
        self._consumer = consumer
        self._source_queue = source_queue
        self._fifo = fifo
        self._now = now

    async def send(self, message: Message, error: Permanent) -> None:
        """Return when every letter is in the queue.

        Raises `Unavailable` when SQS is away, and `Transient` when this letter is refused: either way the
        message must not be deleted.
        """
        refusals = error.refusals if isinstance(error, Rejected) else (Refusal(error),)
        left = [self._letter(message, refusal, n) for n, refusal in enumerate(refusals)]
        async for attempt in stamina.retry_context(on=Unavailable, attempts=3, timeout=20):
            with attempt:
                try:
                    failed = await self.queue.send(left)
                except Permanent as refused:
                    raise Transient(f"dead letter refused: {refused.reason}", error_class="dead_letter") from refused
                except Unavailable as away:
                    if away.error_class != "access_denied":
                        raise
                    raise Transient(f"dead letter refused: {away.reason}", error_class="dead_letter") from away
                left = [left[position] for position in sorted(failed)]
                if left:
                    first = next(iter(failed.values()))
                    text = f"dead letter refused by {self.queue.name}: {first.code}: {first.message}"
                    if first.lost:  # the sender's fault: the same letter would be refused again
                        raise Transient(text, error_class="dead_letter")
                    raise Unavailable(text, dependency="sqs", error_class="server_error")

    def _letter(self, message: Message, refusal: Refusal, number: int) -> Letter:
        """Return the letter with as much of its reason as fits beside the body, which stays whole."""
        body = message.body if refusal.body is None or _ILLEGAL.search(refusal.body) else refusal.body
        group_id = (message.group_id or "dead-letters") if self._fifo else None
        deduplication_id = f"{message.id}-{message.receive_count}-{number}" if self._fifo else None
        for attributes in (self._attributes(message, refusal.error), self._minimal(message, refusal.error), {}):
            letter = Letter(body, attributes, group_id, deduplication_id)
            if letter.size_bytes <= MAX_BODY_BYTES:
                return letter
        if body is message.body:
            return letter  # from a server with other limits than SQS: whether it takes this back is its own word
        # A part of a message, such as an item in an S3 object, may be larger: the whole message stands for it.
        return self._letter(message, Refusal(refusal.error), number)

    def _attributes(self, message: Message, error: Permanent) -> dict[str, Mapping[str, Any]]:
        values = {
            "error_class": error.error_class,
            "reason": clip_reason(error.reason),
            "consumer": self._consumer,
            "collection": error.collection,
            "item_id": error.item_id,
            "failed_at": _time(self._now()),
            "source_queue": self._source_queue,
        }
        attributes: dict[str, Mapping[str, Any]] = {
            _PREFIX + name: _string(clip_reason(str(value), 1024 if name == "reason" else 256))
            for name, value in values.items()
            if value
        }
        attributes |= _sent_at(message)
        for name, value in message.attributes.items():
            if len(attributes) < _MAX_ATTRIBUTES and not name.startswith(_PREFIX):
                attributes[name] = {key: value[key] for key in _KEPT if key in value}
        return attributes

    def _minimal(self, message: Message, error: Permanent) -> dict[str, Mapping[str, Any]]:
        return {
            _PREFIX + "error_class": _string(error.error_class),
            _PREFIX + "reason": _string(clip_reason(error.reason, 200)),
            **_sent_at(message),
        }


def _sent_at(message: Message) -> dict[str, dict[str, str]]:
    """Keep when the message was first sent: sent again as it is, it must not pass for a newer one."""
    return {SENT_AT: _string(_time(message.first_sent_at))} if message.first_sent_at else {}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _string(value: str) -> dict[str, str]:
    return {"DataType": "String", "StringValue": value}
