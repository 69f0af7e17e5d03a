"""Peak memory of a real daemon, whatever waits in its queue: `python -m bench.memory`.

Each row is a fresh process (`stacworker run`) on a fresh queue and catalogue; its peak is the kernel's own figure
(VmHWM). A backlog is worked on for some seconds only: what counts is that memory does not follow its length.
`--backlog 1000000` adds a row that takes some ten minutes to fill, and LocalStack some GB.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import psycopg
import typer
import yaml
from botocore.config import Config

from bench.report import Row, machine, write
from stacworker.testing.localstack import REGION, LocalStack
from stacworker.testing.postgres import Postgres

_MIB = 1 << 20
_SECONDS = 20.0
_SENDERS = 8
_COLLECTION = """
SET search_path TO pgstac, public;
SELECT pgstac.create_collection('{"id": "things", "type": "Collection", "stac_version": "1.0.0", "description": "-",
 "license": "other", "links": [], "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]},
 "temporal": {"interval": [[null, null]]}}}');
"""


@dataclass(frozen=True)
class Case:
    """What waits in the queue, and how the daemon is set; it runs until `items` are loaded, or for a while."""

    name: str
    messages: int = 0
    padding_bytes: int = 0
    items_per_message: int = 1
    objects: int = 0
    items_per_object: int = 0
    lines: bool = True
    settings: dict[str, Any] = field(default_factory=dict)
    target: str = ""

    @property
    def items(self) -> int:
        """How many items there are to load."""
        return self.messages * self.items_per_message + self.objects * self.items_per_object


CASES = (
    Case("idle"),
    Case("backlog of 10,000 small messages", 10_000),
    Case("backlog of 100,000 small messages", 100_000, target="as with 10,000"),
    Case("500 messages of 1 MiB, each one item", 500, _MIB - 1500),
    Case("300 messages of 1 MiB, each 2,000 items", 300, items_per_message=2000),
    Case(
        "500 messages of 1 MiB, each one item, max_in_flight_bytes 16MB",
        500,
        _MIB - 1500,
        settings={"max_in_flight_bytes": "16MB"},
    ),
    Case("one S3 object of 100,000 items, a line each", objects=1, items_per_object=100_000),
    Case("one S3 object of 100,000 items, a FeatureCollection", objects=1, items_per_object=100_000, lines=False),
    Case("ten S3 objects of 100,000 items, a line each", objects=10, items_per_object=100_000),
)


class Servers:
    """LocalStack and Postgres, and what fills them."""

    def __init__(self, localstack: LocalStack, postgres: Postgres) -> None:
        self.localstack = localstack
        self.postgres = postgres
        self.sqs, self.s3 = (
            boto3.client(
                service,
                endpoint_url=localstack.endpoint_url,
                region_name=REGION,
                aws_access_key_id="test",
                aws_secret_access_key="test",
                config=Config(max_pool_connections=_SENDERS, s3={"addressing_style": "path"}),
            )
            for service in ("sqs", "s3")
        )

    def fill(self, name: str, case: Case) -> str:
        """Make a queue with the messages of a case; return its URL."""
        url: str = self.sqs.create_queue(QueueName=name)["QueueUrl"]
        per_call = 10 if case.padding_bytes < 10_000 and case.items_per_message == 1 else 1

        def send(first: int) -> None:
            numbers = range(first, min(first + per_call, case.messages))
            entries = [{"Id": str(number), "MessageBody": _body(number, case)} for number in numbers]
            self.sqs.send_message_batch(QueueUrl=url, Entries=entries)

        with ThreadPoolExecutor(_SENDERS) as senders:
            list(senders.map(send, range(0, case.messages, per_call)))
        if case.objects:
            self.s3.create_bucket(Bucket=name)
        for number in range(case.objects):
            items = [_item(number * case.items_per_object + each) for each in range(case.items_per_object)]
            body = "\n".join(items) if case.lines else _collection(items)
            self.s3.put_object(Bucket=name, Key=f"part-{number}", Body=body.encode())
            self.sqs.send_message(QueueUrl=url, MessageBody=f"s3://{name}/part-{number}")
        return url

    @contextmanager
    def database(self) -> Iterator[str]:
        """Lend a catalogue with one collection."""
        with self.postgres.scratch("0.10.0") as name:
            self.postgres.execute(_COLLECTION, database=name)
            yield self.postgres.dsn(name)


def _body(number: int, case: Case) -> str:
    if case.items_per_message == 1:
        return _item(number, case.padding_bytes)
    first = number * case.items_per_message
    return _collection([_item(each) for each in range(first, first + case.items_per_message)])


def _collection(items: list[str]) -> str:
    return f'{{"type": "FeatureCollection", "features": [{",".join(items)}]}}'


def _item(number: int, padding_bytes: int = 0) -> str:
    return json.dumps(
        {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": f"item-{number:07}",
            "collection": "things",
            "geometry": {"type": "Point", "coordinates": [number % 360 - 180, number % 170 - 85]},
            "bbox": [number % 360 - 180, number % 170 - 85, number % 360 - 180, number % 170 - 85],
            "properties": {"datetime": "2024-03-05T10:00:00Z", "platform": "somewhere", "padding": "x" * padding_bytes},
            "links": [],
            "assets": {"data": {"href": f"s3://somewhere/{number}.tif", "type": "image/tiff; application=geotiff"}},
        }
    )


def peak_mib(servers: Servers, number: int, case: Case, folder: Path) -> tuple[float, int]:
    """Run the daemon on a case; return its peak memory in MiB, and how many items were loaded."""
    url = servers.fill(f"memory-{number}", case)
    with servers.database() as dsn:
        settings = {
            "aws": {"endpoint_url": servers.localstack.endpoint_url, "region": REGION},
            "database": {"dsn": dsn},
            "consumers": [{"name": "items", "type": "load", "queue_url": url, "wait_time_s": 1, **case.settings}],
            "http": {"enabled": False},
            "log": {"level": "warning"},
        }
        config = folder / f"{number}.yaml"
        config.write_text(yaml.safe_dump(settings))
        env = {**os.environ, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        daemon = subprocess.Popen([sys.executable, "-m", "stacworker", "run", "--config", str(config)], env=env)
        try:
            end = time.monotonic() + _SECONDS
            loaded = 0
            with psycopg.connect(dsn, autocommit=True) as connection:
                while time.monotonic() < end and (not case.items or loaded < case.items):
                    time.sleep(0.5)
                    (loaded,) = connection.execute("SELECT count(*) FROM pgstac.items").fetchone() or (0,)
            return _peak_mib(daemon.pid), loaded
        finally:
            daemon.terminate()
            daemon.wait(90)


def _peak_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the daemon has ended")


def main(json_file: str = typer.Option("", "--json"), backlog: int = 0) -> None:
    """Measure each case."""
    cases = [*CASES]
    if backlog:
        cases.append(Case(f"backlog of {backlog:,} small messages", backlog, target="as with 10,000"))
    rows = []
    with LocalStack() as localstack, Postgres() as postgres, tempfile.TemporaryDirectory() as folder:
        servers = Servers(localstack, postgres)
        for number, case in enumerate(cases):
            peak, loaded = peak_mib(servers, number, case, Path(folder))
            rows.append(Row(f"{case.name} ({loaded:,} items loaded): peak MiB", peak, target=case.target))
    write("memory", f"Peak resident memory of one daemon ({machine()})", rows, json_file)


if __name__ == "__main__":
    typer.run(main)
