"""Looks at a consumer's queue, its redrive policy, and where its output goes. Takes no message, changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stacworker.aws import translated
from stacworker.errors import StacworkerError
from stacworker.ops.findings import Finding, error, ok, warning
from stacworker.settings import ConsumerSettings

_FEW_RECEIVES = 3
_ARN_PARTS = 6
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Clients:
    """The AWS clients that checks use."""

    sqs: Any
    sns: Any
    s3: Any


async def check_queue(clients: Clients, consumer: ConsumerSettings) -> list[Finding]:
    """Look at one consumer's queue and at where its dead letters go."""
    subject = f"queue of {consumer.name}"
    try:
        queue = await _attributes(clients.sqs, consumer.queue_url)
    except StacworkerError as problem:
        return [error(subject, f"{problem.reason}; needs an existing queue and sqs:GetQueueAttributes on it")]
    waiting = queue.get("ApproximateNumberOfMessages", "?")
    held = queue.get("ApproximateNumberOfMessagesNotVisible", "?")
    kind = "FIFO: in order within each group, a failure holds its group back" if _is_fifo(queue) else "standard"
    found = [
        ok(subject, f"{kind}; messages waiting: {waiting}, in flight: {held}"),
        ok(
            subject,
            f"each receive asks for a lease of {consumer.visibility_timeout_s:g} s, whatever the queue's own timeout "
            f"({queue.get('VisibilityTimeout', '?')} s); sqs:ReceiveMessage was not tried, it would cost a receive",
        ),
    ]
    return found + await _check_dead_letters(clients.sqs, consumer, queue)


async def _check_dead_letters(sqs: Any, consumer: ConsumerSettings, queue: Mapping[str, str]) -> list[Finding]:
    subject = f"dead letters of {consumer.name}"
    policy = json.loads(queue.get("RedrivePolicy") or "{}")
    url = consumer.dead_letter_queue_url
    found = list(_check_receives(subject, consumer, policy))
    try:
        if url is None:
            if not policy.get("deadLetterTargetArn"):
                advice = "give the queue a redrive policy, or set dead_letter_queue_url"
                return [*found, warning(subject, f"there is no dead-letter queue: bad messages are retried; {advice}")]
            url = await _url_of(sqs, str(policy["deadLetterTargetArn"]))
        dead = await _attributes(sqs, url)
    except StacworkerError as problem:
        return [
            *found,
            error(subject, f"the dead-letter queue: {problem.reason}; create it, or grant access"),
        ]
    found += _check_pair(subject, url, queue, dead)
    return found


def _check_receives(subject: str, consumer: ConsumerSettings, policy: Mapping[str, Any]) -> Iterator[Finding]:
    receives = policy.get("maxReceiveCount")
    if receives is None:
        yield ok(subject, f"a message is tried {consumer.max_receive_count} times (max_receive_count)")
    elif int(receives) < _FEW_RECEIVES:
        text = f"the redrive policy's maxReceiveCount is {receives}: a restart or two dead-letter good messages; use 5"
        yield warning(subject, text)
    else:
        yield ok(subject, f"a message is tried {receives} times (the redrive policy's maxReceiveCount)")


def _check_pair(subject: str, url: str, queue: Mapping[str, str], dead: Mapping[str, str]) -> Iterator[Finding]:
    if _is_fifo(queue) != _is_fifo(dead):
        yield error(subject, f"{url} must be a FIFO queue exactly when the source queue is: use another one")
        return
    kept_s, source_s = (int(each.get("MessageRetentionPeriod", 0)) for each in (dead, queue))
    # SQS counts from when the message was first sent, also after it was moved by the redrive policy.
    if kept_s < source_s:
        text = f"{url} keeps messages for {_days(kept_s)}, the queue itself for {_days(source_s)}"
        yield warning(subject, f"{text}: set its MessageRetentionPeriod at least as high")
    else:
        count = dead.get("ApproximateNumberOfMessages", "?")
        yield ok(subject, f"{url} keeps them for {_days(kept_s)}; messages in it: {count}")


async def check_output(clients: Clients, consumer: ConsumerSettings) -> list[Finding]:
    """Look at where a generate consumer publishes items, and what is too large for there; nothing for `load`."""
    if consumer.type != "generate" or consumer.output == "load":
        return []
    found = [await _check_place(clients, f"output of {consumer.name}", consumer.output)]
    if consumer.output_overflow:
        found.append(await _check_place(clients, f"output overflow of {consumer.name}", consumer.output_overflow))
    return found


async def _check_place(clients: Clients, subject: str, place: str) -> Finding:
    kind, _, target = place.partition(":")
    text = f"{place} is there"
    try:
        if kind == "sns":
            with translated("sns", f"looking at {target}"):
                await clients.sns.get_topic_attributes(TopicArn=target)
        elif kind == "sqs":
            queue = await _attributes(clients.sqs, target)
            text += f"; it takes messages up to {queue.get('MaximumMessageSize', '?')} bytes"
        else:
            bucket = target.removeprefix("//").partition("/")[0]
            with translated("s3", f"looking at bucket {bucket}"):
                await clients.s3.head_bucket(Bucket=bucket)
    except StacworkerError as problem:
        return error(subject, f"{problem.reason}; create it, or grant access to it")
    return ok(subject, text)


async def _attributes(sqs: Any, url: str) -> dict[str, str]:
    with translated("sqs", f"looking at {url}"):
        answer = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
    return dict(answer.get("Attributes", {}))


async def _url_of(sqs: Any, arn: str) -> str:
    with translated("sqs", f"looking for {arn}"):
        *_, account, name = arn.split(":", _ARN_PARTS - 1)
        answer = await sqs.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)
    return str(answer["QueueUrl"])


def _is_fifo(queue: Mapping[str, str]) -> bool:
    return queue.get("FifoQueue", "false") == "true"


def _days(seconds: int) -> str:
    return f"{seconds / _DAY_S:.3g} days"
