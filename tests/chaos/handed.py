"""What is known of a queue from the calls that pass a gateway: what it handed out, what it accepted."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.chaos.aws_faults import Message
from tests.chaos.calls import Answer, Call

_REMEMBERED = 200


class Handed:
    """The messages of one queue: which are held by somebody, and whose each receipt handle is.

    Handles are remembered for good, because a delete whose answer was lost is asked for again.
    """

    def __init__(self) -> None:
        self.held: dict[str, Message] = {}
        self.lately: deque[Message] = deque(maxlen=_REMEMBERED)
        self.receive: Call | None = None
        self._ids: dict[str, str] = {}

    def note(self, call: Call, messages: Iterable[Message]) -> None:
        """Remember the messages that this receive brought."""
        self.receive = call
        for message in messages:
            self.held[message["MessageId"]] = message
            self.lately.append(message)
            self._ids[message["ReceiptHandle"]] = message["MessageId"]

    def id_of(self, handle: str) -> str:
        """Return the id of the message with this receipt handle; the handle itself where it is not known."""
        return self._ids.get(handle, handle)

    def deleted(self, handles: Iterable[str]) -> None:
        """Forget the hold on the messages with these receipt handles."""
        for handle in handles:
            self.held.pop(self.id_of(handle), None)


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that a queue has accepted; `attributes` are the message attributes' string values."""

    message_id: str
    body: str
    attributes: dict[str, str]


def handles_to_delete(call: Call) -> dict[str, str]:
    """Return the receipt handles that a call wants deleted, by entry (a single delete's entry is `""`)."""
    return {id_: entry["ReceiptHandle"] for id_, entry in _entries(call, "DeleteMessage")}


def accepted(call: Call, answer: Answer) -> list[Sent]:
    """Return the messages that a queue has taken."""
    entries = dict(_entries(call, "SendMessage"))
    return [
        Sent(
            message_id=done["MessageId"],
            body=entries[id_]["MessageBody"],
            attributes={
                name: value.get("StringValue", "")
                for name, value in (entries[id_].get("MessageAttributes") or {}).items()
            },
        )
        for id_, done in successful(answer).items()
        if id_ in entries
    ]


def successful(answer: Answer) -> dict[str, dict[str, Any]]:
    """Return what an answer says of each entry that was done (a single call's entry is `""`)."""
    body = answer.json
    if "Successful" in body or "Failed" in body:
        return {entry["Id"]: entry for entry in body.get("Successful") or ()}
    return {"": body}


def _entries(call: Call, operation: str) -> list[tuple[str, Any]]:
    if call.operation == operation:
        return [("", call.json)]
    if call.operation == f"{operation}Batch":
        return [(entry["Id"], entry) for entry in call.json["Entries"]]
    return []
