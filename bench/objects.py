"""Items that arrive as S3 events: fetched, checked and loaded, against a bare loop of concurrent GETs.

The bare loop only reads the bytes of the same objects, with the same client and the same concurrency. Ours
is everything from the message to COMMIT. S3 is a LocalStack of its own, the database a Postgres of its own.
"""

from __future__ import annotations

import asyncio
import json as jsonlib
import statistics
import time
from typing import Any

import typer

from bench.items import collection, item
from bench.report import Row, machine, write
from stacworker import log
from stacworker.api import Message
from stacworker.aws import Aws
from stacworker.database import Database
from stacworker.envelope.objects import S3Objects
from stacworker.envelope.reader import Reader
from stacworker.inflight import InFlight
from stacworker.load.batcher import Batcher
from stacworker.load.consumer import LoadConsumer
from stacworker.load.pgstac import Catalogue
from stacworker.load.sink import PgstacSink
from stacworker.metrics import Metrics
from stacworker.settings import CollectionSettings, DeletesSettings
from stacworker.testing.localstack import REGION, LocalStack
from stacworker.testing.postgres import Postgres

CONCURRENCY = 64
BUCKET = "bench"


async def bare(client: Any, keys: list[str]) -> None:
    slots = asyncio.Semaphore(CONCURRENCY)

    async def get(key: str) -> bytes:
        async with slots:
            answer = await client.get_object(Bucket=BUCKET, Key=key)
            async with answer["Body"] as body:
                found: bytes = await body.read()
                return found

    await asyncio.gather(*(get(key) for key in keys))


def event(key: str, in_flight: InFlight) -> Message:
    record = {
        "eventSource": "aws:s3",
        "eventName": "ObjectCreated:Put",
        "eventTime": "2026-01-01T00:00:00.000Z",
        "s3": {"bucket": {"name": BUCKET}, "object": {"key": key, "sequencer": f"{time.time_ns():X}"}},
    }
    return Message(key, jsonlib.dumps({"Records": [record]}), "", 1, time.time(), in_flight=in_flight)


async def ours(consumer: LoadConsumer, keys: list[str]) -> None:
    in_flight = InFlight()

    async def handle(key: str) -> None:
        try:
            await consumer.handle(event(key, in_flight))
        finally:
            in_flight.leave()

    for _ in keys:
        in_flight.enter()
    await asyncio.gather(*(handle(key) for key in keys))


async def measure(endpoint_url: str, dsn: str, objects: int, rounds: int) -> tuple[list[float], list[float]]:
    metrics = Metrics()
    aws = Aws(endpoint_url=endpoint_url, region=REGION)
    async with (
        aws.client("s3", max_connections=CONCURRENCY + 8) as client,
        Database(dsn) as database,
        Catalogue(database=database, metrics=metrics) as catalogue,
        Batcher(catalogue, lambda _: CollectionSettings(), metrics) as batcher,
    ):
        await catalogue.put_collection(collection("small", "bench"))
        await client.create_bucket(Bucket=BUCKET)
        keys = [f"items/{n:05}.json" for n in range(objects)]
        for n, key in enumerate(keys):
            await client.put_object(Bucket=BUCKET, Key=key, Body=jsonlib.dumps(item("small", "bench", n, objects)))
        sink = PgstacSink(catalogue, batcher, lambda _: CollectionSettings(), metrics)
        reader = Reader(S3Objects(client, metrics, max_concurrency=CONCURRENCY))
        consumer = LoadConsumer(reader=reader, sink=sink, deletes=DeletesSettings())
        bare_s, ours_s = [], []
        for turn in range(rounds + 1):
            for times, run in ((bare_s, bare(client, keys)), (ours_s, ours(consumer, keys))):
                started = time.perf_counter()
                await run
                if turn:  # the first turn warms up
                    times.append(time.perf_counter() - started)
    return bare_s, ours_s


def main(objects: int = 500, rounds: int = 5, json: str = "") -> None:
    """Run the benchmark and print its table."""
    log.configure("warning")
    with LocalStack() as localstack, Postgres() as postgres:
        dsn = postgres.dsn(postgres.clone("0.10.0"))
        bare_s, ours_s = asyncio.run(measure(localstack.endpoint_url, dsn, objects, rounds))
    ratio = statistics.median(b / o for b, o in zip(bare_s, ours_s, strict=True))
    rows = [
        Row("bare GETs, objects/s", objects / statistics.median(bare_s)),
        Row("S3 events loaded, items/s", objects / statistics.median(ours_s), ratio=ratio, target="≥ 0.7"),
    ]
    write("objects", f"{objects} objects, {rounds} rounds, {CONCURRENCY} at a time; {machine()}", rows, json)


if __name__ == "__main__":
    typer.run(main)
