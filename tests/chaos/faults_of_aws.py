"""A queue and an object store that are slow, refuse, or act and do not say so."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tests.chaos import aws_faults
from tests.chaos.aws_faults import (
    Delay,
    Denied,
    Drop,
    Duplicate,
    Expired,
    Hang,
    PartFailure,
    Redeliver,
    Reorder,
    Reset,
    ServerError,
    Swallow,
    Throttle,
    Truncate,
)
from tests.chaos.fault import FEW_TRIES, MANY_TRIES, STARTS, Fault
from tests.chaos.round import Round

_RECEIVE = ("ReceiveMessage",)
_DELETE = ("DeleteMessage", "DeleteMessageBatch")
_SEND = ("SendMessage", "SendMessageBatch")
_VISIBILITY = ("ChangeMessageVisibility", "ChangeMessageVisibilityBatch")
_SQS, _S3 = ("sqs",), ("s3",)


def through_gateway(name: str, *faults: aws_faults.Fault, tries: int = FEW_TRIES, **more: object) -> Fault:
    """Return a fault that strikes AWS calls while the round's faults last."""

    async def inject(round_: Round) -> int:
        return await strike(round_, faults)

    return Fault(name, inject, tries=tries, **more)  # type: ignore[arg-type]


async def strike(round_: Round, faults: Sequence[aws_faults.Fault], *, after_s: float = 0.0) -> int:
    """Add faults to the round's gateway for a while; return how often they struck."""
    await asyncio.sleep(after_s)
    names = {type(fault).__name__ for fault in faults}
    before = sum(round_.gateway.injected[name] for name in names)
    round_.gateway.add(*faults)
    await asyncio.sleep(round_.seconds)
    round_.gateway.remove(*faults)
    return sum(round_.gateway.injected[name] for name in names) - before


def outage(name: str, fault: aws_faults.Fault, *, clashes: str = "") -> Fault:
    """Return a fault that strikes every call, once work has begun."""

    async def inject(round_: Round) -> int:
        return await strike(round_, [fault], after_s=1.0)

    return Fault(name, inject, clashes=clashes)


async def _expire(round_: Round) -> int:
    expired = 0
    for _ in range(int(round_.seconds / 0.3)):
        expired += await round_.gateway.expire(20)
        await asyncio.sleep(0.3)
    return expired


async def _leases_lapse(round_: Round) -> int:
    """Extensions do nothing, and work takes longer than a lease."""
    round_.proxy.slow(0.2)
    return await strike(round_, [Swallow()])


FAULTS = (
    through_gateway("AWS slow", Delay(delay_s=0.5, chance=0.4)),
    through_gateway("SQS throttles", Throttle(on=_SQS, chance=0.3)),
    through_gateway(
        "SQS answers 500, 503",
        ServerError(on=_SQS, chance=0.15),
        ServerError(on=_SQS, chance=0.15, status=503),
    ),
    through_gateway("SQS resets connections", Reset(on=_SQS, chance=0.3)),
    through_gateway("receives answered into the void", Drop(on=_RECEIVE, chance=0.4), tries=MANY_TRIES),
    through_gateway("deletes done, answers lost", Drop(on=_DELETE, chance=0.5)),
    through_gateway("dead letters sent, answers lost", Drop(on=_SEND, chance=0.6)),
    through_gateway("visibility changed, answers lost", Drop(on=_VISIBILITY, chance=0.6), Delay(on=_S3, delay_s=3.0)),
    through_gateway("SQS connections half-open", Hang(on=_SQS, times=4)),
    through_gateway("answers cut short", Truncate(chance=0.2), tries=MANY_TRIES),
    through_gateway("batches fail in part", PartFailure(chance=0.6)),
    through_gateway("duplicates in a receive", Duplicate(chance=0.6)),
    through_gateway("deleted messages come again", Redeliver(chance=0.6)),
    through_gateway("reordered", Reorder(chance=0.9)),
    Fault("leases expire behind our back", _expire, tries=MANY_TRIES),
    Fault("extensions do nothing", _leases_lapse, tries=MANY_TRIES, settings={"visibility_timeout_s": 2}),
    outage("AWS away", Reset()),
    outage("credentials expired", Expired()),
    # Who starts without being allowed to do its work ends with exit code 1, as it should.
    outage("access denied", Denied(on=_SQS), clashes=STARTS),
    through_gateway("S3 slow", Delay(on=_S3, delay_s=1.5)),
    through_gateway("S3 says SlowDown", Throttle(on=_S3, chance=0.5)),
    through_gateway(
        "S3 answers 500, 503", ServerError(on=_S3, chance=0.3), ServerError(on=_S3, chance=0.3, status=503)
    ),
    through_gateway("S3 resets, cuts bodies short", Reset(on=_S3, chance=0.3), Truncate(on=_S3, chance=0.3)),
    through_gateway("S3 connections half-open", Hang(on=_S3, times=3)),
    through_gateway(
        "FIFO: part failures, 500s", PartFailure(chance=0.3), ServerError(chance=0.1), tries=MANY_TRIES, fifo=True
    ),
)
