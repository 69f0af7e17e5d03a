"""One to eight daemons on one queue and one catalogue: `python -m bench.replicas`.

S3 objects of 1,000 items each are loaded by so many `stacworker run` processes, into one collection or into eight,
while somebody searches. All of it on one machine, LocalStack and Postgres included: what counts is what more replicas
do to each other, not the sum.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import psycopg
import typer
import yaml

from bench.memory import Servers
from bench.report import Row, machine, write
from stacworker.testing.localstack import REGION, LocalStack
from stacworker.testing.postgres import Postgres

_OBJECT_ITEMS = 1000
_READY_S = 60.0
_SEARCH = """SELECT pgstac.search('{"collections": ["c0"], "limit": 10}')"""
_LOADED = "SELECT count(*) FROM pgstac.items"
_CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'stacworker%'"


def item(number: int, collection: str) -> str:
    west, south = number % 359 - 180, number % 170 - 85
    return json.dumps(
        {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": f"item-{number:07}",
            "collection": collection,
            "geometry": {"type": "Point", "coordinates": [west, south]},
            "bbox": [west, south, west, south],
            "properties": {"datetime": f"2024-{number % 12 + 1:02}-05T10:00:00Z", "platform": "somewhere"},
            "links": [],
            "assets": {"data": {"href": f"s3://somewhere/{number}.tif", "type": "image/tiff"}},
        }
    )


def collection(name: str) -> str:
    body = {
        "id": name,
        "type": "Collection",
        "stac_version": "1.0.0",
        "description": name,
        "license": "other",
        "links": [],
        "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
    }
    return f"SET search_path TO pgstac, public; SELECT pgstac.create_collection('{json.dumps(body)}'::jsonb);"


def wait_ready(port: int) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"no daemon on port {port}")


def run(servers: Servers, name: str, replicas: int, collections: int, objects: int) -> tuple[float, float, int]:
    """Return items per second, the 95th percentile of a search meanwhile in ms, and connections at most."""
    names = [f"c{number}" for number in range(collections)]
    servers.s3.create_bucket(Bucket=name)
    for number in range(objects):
        first = number * _OBJECT_ITEMS
        lines = [item(each, names[number % collections]) for each in range(first, first + _OBJECT_ITEMS)]
        servers.s3.put_object(Bucket=name, Key=str(number), Body="\n".join(lines).encode())
    url = servers.sqs.create_queue(QueueName=name)["QueueUrl"]
    with servers.postgres.scratch("0.10.0") as database, tempfile.TemporaryDirectory() as folder:
        for each in names:
            servers.postgres.execute(collection(each), database=database)
        dsn = servers.postgres.dsn(database)
        daemons = [start(servers, url, dsn, Path(folder), number) for number in range(replicas)]
        try:
            for port, _ in daemons:
                wait_ready(port)
            return measure(servers, url, name, dsn, objects)
        finally:
            for _, daemon in daemons:
                daemon.terminate()
            for _, daemon in daemons:
                daemon.wait(90)


def start(servers: Servers, url: str, dsn: str, folder: Path, number: int) -> tuple[int, subprocess.Popen[bytes]]:
    port = 18_500 + number
    settings: dict[str, Any] = {
        "aws": {"endpoint_url": servers.localstack.endpoint_url, "region": REGION},
        "database": {"dsn": dsn},
        "consumers": [{"name": "items", "type": "load", "queue_url": url, "wait_time_s": 1, "max_in_flight": 8}],
        "http": {"host": "127.0.0.1", "port": port},
        "log": {"level": "warning"},
    }
    config = folder / f"{number}.yaml"
    config.write_text(yaml.safe_dump(settings))
    env = {**os.environ, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    return port, subprocess.Popen([sys.executable, "-m", "stacworker", "run", "--config", str(config)], env=env)


def measure(servers: Servers, url: str, bucket: str, dsn: str, objects: int) -> tuple[float, float, int]:
    started = time.perf_counter()
    for first in range(0, objects, 10):
        numbers = range(first, min(first + 10, objects))
        entries = [{"Id": str(number), "MessageBody": f"s3://{bucket}/{number}"} for number in numbers]
        servers.sqs.send_message_batch(QueueUrl=url, Entries=entries)
    searches: list[float] = []
    connections = 0
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET search_path TO pgstac, public")
        while True:
            before = time.perf_counter()
            connection.execute(_SEARCH.encode())
            searches.append(time.perf_counter() - before)
            connections = max(connections, (connection.execute(_CONNECTIONS).fetchone() or (0,))[0])
            (loaded,) = connection.execute(_LOADED).fetchone() or (0,)
            if loaded >= objects * _OBJECT_ITEMS:
                break
            time.sleep(0.05)
    per_s = objects * _OBJECT_ITEMS / (time.perf_counter() - started)
    return per_s, 1000 * statistics.quantiles(searches, n=20)[-1], connections


def main(objects: int = 64, json: str = "") -> None:
    """Measure each number of replicas."""
    rows: list[Row] = []
    with LocalStack() as localstack, Postgres() as postgres:
        servers = Servers(localstack, postgres)
        for collections in (1, 8):
            alone = 0.0
            for replicas in (1, 2, 4, 8):
                name = f"replicas-{collections}-{replicas}"
                per_s, search_ms, connections = run(servers, name, replicas, collections, objects)
                alone = alone or per_s
                what = f"{collections} collection(s), {replicas} replica(s)"
                rows += [
                    Row(f"{what}: items/s", per_s, per_s / alone),
                    Row(f"{what}: search p95 ms", search_ms),
                    Row(f"{what}: database connections", connections),
                ]
    write("replicas", f"{objects} S3 objects of {_OBJECT_ITEMS:,} items; × is against one; {machine()}", rows, json)


if __name__ == "__main__":
    typer.run(main)
