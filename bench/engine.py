"""The engine with a consumer that does nothing, against a bare aioboto3 loop of the same concurrency.

Both receive and delete the same messages from a LocalStack of their own, in turns; counted is from the first
receive to the answer to the last delete. LocalStack allows two to three thousand messages a second, so CPU per
message of the polling process is the figure that counts.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import typer

from bench.report import Row, machine, write
from stacworker import log
from stacworker.api import Message
from stacworker.aws import Aws
from stacworker.consume.engine import Engine, Limits
from stacworker.consume.sqs import SqsQueue
from stacworker.lifecycle import Lifecycle
from stacworker.metrics import Metrics
from stacworker.testing.localstack import REGION, LocalStack

POLLERS = 8


class Nothing:
    """A consumer that is done at once, and says when it has seen all messages."""

    def __init__(self, expected: int) -> None:
        self.left = expected
        self.all_seen = asyncio.Event()

    async def handle(self, message: Message) -> None:  # noqa: ARG002
        self.left -= 1
        if not self.left:
            self.all_seen.set()

    async def ping(self) -> None:
        pass


async def fill(client: Any, url: str, messages: int) -> None:
    body = "x" * 1500
    slots = asyncio.Semaphore(16)

    async def send(first: int) -> None:
        async with slots:
            entries = [{"Id": str(n), "MessageBody": body} for n in range(first, min(first + 10, messages))]
            await client.send_message_batch(QueueUrl=url, Entries=entries)

    await asyncio.gather(*(send(first) for first in range(0, messages, 10)))


async def bare(client: Any, url: str, messages: int, done: Callable[[], None]) -> None:
    """Receive and delete: what nobody who polls SQS can do without."""
    left = messages

    async def poll() -> None:
        nonlocal left
        while left > 0:
            answer = await client.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=10,
                WaitTimeSeconds=1,
                MessageSystemAttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
            found = answer.get("Messages", [])
            if found:
                entries = [{"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(found)]
                await client.delete_message_batch(QueueUrl=url, Entries=entries)
                left -= len(found)
                if not left:
                    done()

    await asyncio.gather(*(poll() for _ in range(POLLERS)))


async def engine(client: Any, url: str, messages: int, done: Callable[[], None]) -> None:
    metrics = Metrics()
    acked = metrics.messages.labels("bench", "acked")
    consumer = Nothing(messages)
    lifecycle = Lifecycle(drain_timeout_s=30)
    runner = Engine(
        name="bench",
        queue=SqsQueue(client, url, "bench"),
        consumer=consumer,
        dead_letters=None,
        limits=Limits(max_pollers=POLLERS, wait_time_s=1),
        fifo=False,
        lifecycle=lifecycle,
        metrics=metrics,
    )
    task = asyncio.create_task(runner.run())
    await consumer.all_seen.wait()
    while acked._value.get() < messages:  # noqa: ASYNC110, SLF001 - counted once SQS has answered the delete
        await asyncio.sleep(0.002)
    done()
    lifecycle.stop("done")
    await task


def note(ended: list[tuple[float, float]]) -> None:
    ended.append((time.perf_counter(), time.process_time()))


async def measure(endpoint_url: str, messages: int, rounds: int) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {"bare": [], "engine": []}
    async with Aws(endpoint_url=endpoint_url, region=REGION).client("sqs", max_connections=64) as client:
        for turn in range(rounds + 1):
            for name, consume in (("bare", bare), ("engine", engine)):
                url = (await client.create_queue(QueueName=f"{name}-{turn}"))["QueueUrl"]
                await fill(client, url, messages)
                ended: list[tuple[float, float]] = []
                wall, cpu = time.perf_counter(), time.process_time()
                await consume(client, url, messages, partial(note, ended))
                if turn:  # the first turn warms up
                    found[name].append((ended[0][0] - wall, ended[0][1] - cpu))
    return found


def main(messages: int = 4000, rounds: int = 5, json: str = "") -> None:
    """Run the benchmark and print its table."""
    log.configure("warning")  # as quiet as the daemon is about messages that end well
    with LocalStack() as localstack:
        found = asyncio.run(measure(localstack.endpoint_url, messages, rounds))
    wall = {name: statistics.median(w for w, _ in runs) for name, runs in found.items()}
    cpu = {name: statistics.median(c for _, c in runs) for name, runs in found.items()}
    throughput = statistics.median(b[0] / e[0] for b, e in zip(found["bare"], found["engine"], strict=True))
    cpu_ratio = statistics.median(e[1] / b[1] for b, e in zip(found["bare"], found["engine"], strict=True))
    rows = [
        Row("bare loop, messages/s", messages / wall["bare"]),
        Row("engine, messages/s", messages / wall["engine"], ratio=throughput, target="≥ 0.9"),
        Row("bare loop, CPU ms/message", cpu["bare"] / messages * 1000),
        Row("engine, CPU ms/message", cpu["engine"] / messages * 1000, ratio=cpu_ratio, target="≤ 1.5"),
    ]
    write("engine", f"{messages} messages, {rounds} rounds, {POLLERS} pollers; {machine()}", rows, json)


if __name__ == "__main__":
    typer.run(main)
