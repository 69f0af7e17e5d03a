"""What can go wrong with an AWS call: one small class for each.

A fault stands between a call and the service, and may change the call, the answer, or what the client gets
to see of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Protocol

from tests.chaos.calls import Answer, Call, Ending, error_answer, json_answer

Message = dict[str, Any]
"""A message as it stands in SQS' answer."""

Act = Callable[[Call], Awaitable[Answer]]
"""Hands a call on, to the next fault and in the end to the service."""


class Dice(Protocol):
    """Decides whether a fault strikes, and keeps count."""

    random: Random

    def strikes(self, fault: Fault) -> bool:
        """Return True by the fault's chance, while it may strike at all."""

    def count(self, fault: Fault) -> bool:
        """Count one strike; False when others have used the last one up meanwhile."""

    def handed_out(self, queue_url: str) -> list[Message]:
        """Return messages that a queue handed out lately."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Base of all: on which calls, how likely, and how often at most (None: without end).

    `on` holds names of operations (`ReceiveMessage`) or services (`s3`); empty means every call. A strike is
    counted when something was really done: a dropped answer to a receive counts when it held messages.
    """

    on: tuple[str, ...] = ()
    chance: float = 1.0
    times: int | None = None

    def concerns(self, call: Call) -> bool:
        """Return True when this call may be struck."""
        return not self.on or call.operation in self.on or call.service in self.on

    async def apply(self, call: Call, act: Act, dice: Dice) -> Answer:
        """Answer the call, by way of `act` or without the service."""
        raise NotImplementedError


# -- before the service acts ------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Delay(Fault):
    """The call is acted upon late."""

    delay_s: float

    async def apply(self, call: Call, act: Act, dice: Dice) -> Answer:
        if dice.strikes(self) and dice.count(self):
            await asyncio.sleep(self.delay_s)
        return await act(call)


class _Refused(Fault):
    """The call is answered with an error and not acted upon."""

    async def apply(self, call: Call, act: Act, dice: Dice) -> Answer:
        if dice.strikes(self) and dice.count(self):
            return error_answer(call, *self.error(call))
        return await act(call)

    def error(self, call: Call) -> tuple[int, str, str]:
        """Return status, code and message."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class ServerError(_Refused):
    """The service is ill: 500, 503 or 504."""

    status: int = 500

    def error(self, call: Call) -> tuple[int, str, str]:
        codes = {500: "InternalError", 503: "ServiceUnavailable", 504: "GatewayTimeout"}
        return self.status, codes[self.status], "We encountered an internal error. Please try again."


class Throttle(_Refused):
    """Too many calls: `RequestThrottled` of SQS, `SlowDown` of S3, `ThrottlingException` of others."""

    def error(self, call: Call) -> tuple[int, str, str]:
        forms = {"sqs": (400, "RequestThrottled"), "s3": (503, "SlowDown")}
        return *forms.get(call.service, (400, "ThrottlingException")), "Please reduce your request rate."


class Denied(_Refused):
    """A policy does not allow the call."""

    def error(self, call: Call) -> tuple[int, str, str]:
        return 403, "AccessDenied", "Access denied."


class Expired(_Refused):
    """The session token has expired."""

    def error(self, call: Call) -> tuple[int, str, str]:
        return 400 if call.service == "s3" else 403, "ExpiredToken", "The security token is expired."


class Reset(Fault):
    """The connection is reset before the service acts."""

    async def apply(self, call: Call, act: Act, dice: Dice) -> Answer:
        if dice.strikes(self) and dice.count(self):
            return Answer(503, {}, b"", ending="reset")
        return await act(call)


# -- after the service acted ------------------------------------------------------------------------


class _Unseen(Fault):
    """The service acts, and the client does not get its answer."""

    ending: Ending

    async def apply(self, call: Call, act: Act, dice: Dice) -> Answer:
        strikes = dice.strikes(self)
        answer = await act(call)
        if strikes and answer.ending == "whole" and _acted(call, answer) and dice.count(self):
            return replace(answer, ending=self.ending)
        return answer


class Drop(_Unseen):
    """Done, but the connection is reset instead of an answer: messages handed out to nobody, deletes unknown."""

    ending = "reset"


class Hang(_Unseen):
    """Done, but never answered: the connection stays open."""

    ending = "unanswered"


class Truncate(_Unseen):
    """Done, and the connection ends in the middle of the answer's body."""

    ending = "truncated"


def _acted(call: Call, answer: Answer) -> bool:
    return answer.ok and (call.operation != "ReceiveMessage" or bool(answer.json.get("Messages")))


# -- of SQS only ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Swallow(Fault):
    """A change of visibility is answered as done and is not."""

    on: tuple[str, ...] = ("ChangeMessageVisibility", "ChangeMessageVisibilityBatch")

    async def apply(self, call: Call, act: Act, dice: Dice) -> Answer:
        if dice.strikes(self) and dice.count(self):
            if "Entries" not in call.json:
                return json_answer({})
            return json_answer({"Successful": [{"Id": entry["Id"]} for entry in call.json["Entries"]], "Failed": []})
        return await act(call)


@dataclass(frozen=True, kw_only=True)
class PartFailure(Fault):
    """Some entries of a batch are not acted upon, and answered as failed; the others are."""

    on: tuple[str, ...] = ("DeleteMessageBatch", "ChangeMessageVisibilityBatch", "SendMessageBatch")
    code: str = "InternalError"
    sender_fault: bool = False

    async def apply(self, call: Call, act: Act, dice: Dice) -> Answer:
        if not (dice.strikes(self) and dice.count(self)):
            return await act(call)
        entries = call.json["Entries"]
        unlucky = {entry["Id"] for entry in dice.random.sample(entries, dice.random.randint(1, len(entries)))}
        lucky = [entry for entry in entries if entry["Id"] not in unlucky]
        answer = await act(call.with_json(Entries=lucky)) if lucky else json_answer({"Successful": []})
        if not answer.ok:
            return answer
        failed = [
            {"Id": entry["Id"], "Code": self.code, "Message": "injected", "SenderFault": self.sender_fault}
            for entry in entries
            if entry["Id"] in unlucky
        ]
        return replace(answer.with_json(Failed=[*answer.json.get("Failed", ()), *failed]), ending=answer.ending)


class _OfReceive(Fault):
    """Changes the messages of a receive; never on FIFO queues, which promise order and uniqueness."""

    def concerns(self, call: Call) -> bool:
        return call.operation == "ReceiveMessage" and not call.is_fifo

    async def apply(self, call: Call, act: Act, dice: Dice) -> Answer:
        strikes = dice.strikes(self)
        answer = await act(self.asked(call) if strikes else call)
        if not (strikes and answer.ok):
            return answer
        changed = self.changed(call, answer.json.get("Messages") or [], dice)
        if changed is None or not dice.count(self):
            return answer
        return replace(answer.with_json(Messages=changed), ending=answer.ending)

    def asked(self, call: Call) -> Call:
        """Return the call as the service gets it."""
        return call

    def changed(self, call: Call, messages: list[Message], dice: Dice) -> list[Message] | None:
        """Return the messages as the client gets them, or None where there is nothing to change."""
        raise NotImplementedError


class _OneMore(_OfReceive):
    """Adds one message, and leaves room for it: SQS never gives more than it is asked for."""

    def concerns(self, call: Call) -> bool:
        return super().concerns(call) and int(call.json.get("MaxNumberOfMessages", 1)) > 1

    def asked(self, call: Call) -> Call:
        return call.with_json(MaxNumberOfMessages=int(call.json["MaxNumberOfMessages"]) - 1)


class Duplicate(_OneMore):
    """A message is twice in the answer to a receive."""

    def changed(self, call: Call, messages: list[Message], dice: Dice) -> list[Message] | None:
        return [*messages, dice.random.choice(messages)] if messages else None


class Redeliver(_OneMore):
    """A message that was handed out before, and may have been deleted since, comes once more."""

    def changed(self, call: Call, messages: list[Message], dice: Dice) -> list[Message] | None:
        here = {message["MessageId"] for message in messages}
        earlier = [message for message in dice.handed_out(call.queue_url) if message["MessageId"] not in here]
        return [*messages, _again(dice.random.choice(earlier))] if earlier else None


class Reorder(_OfReceive):
    """The messages of a receive come in another order."""

    def changed(self, call: Call, messages: list[Message], dice: Dice) -> list[Message] | None:
        return dice.random.sample(messages, len(messages)) if len(messages) > 1 else None


def _again(message: Message) -> Message:
    attributes = dict(message.get("Attributes") or {})
    if "ApproximateReceiveCount" in attributes:
        attributes["ApproximateReceiveCount"] = str(int(attributes["ApproximateReceiveCount"]) + 1)
    return {**message, "Attributes": attributes}
