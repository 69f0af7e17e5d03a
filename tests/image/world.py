"""The servers that the images run against, on loopback, and what is on them."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import yaml

from stacworker.demo.rasters import Granule, make_granules
from stacworker.testing.localstack import REGION, LocalStack
from stacworker.testing.postgres import Postgres
from tests.image.container import Failed
from tests.integration.worker import Catalogue

GRANULES = 300
DRAIN_S = 30
SOURCES = ("items", "requests")
_BATCH = 10


def say(text: str = "") -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


@dataclass(frozen=True, slots=True)
class World:
    """The servers, and what is on them."""

    sqs: Any
    endpoint_url: str
    dsn: str
    queues: dict[str, str]
    folder: Path
    granules: tuple[Granule, ...]

    def env(self) -> dict[str, str]:
        """Return the environment of a container."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "STACWORKER_CONFIG": "/etc/stacworker/stacworker.yaml",
            "STACWORKER_DATABASE__DSN": self.dsn,
            "STACWORKER_HTTP__HOST": "127.0.0.1",
            "STACWORKER_PIPELINES__FOLDER": "/pipelines",
            "STACWORKER_PIPELINES__ONLY": '["naip"]',
            "STACWORKER_ENVIRONMENTS__INSTALL_AT_START": "false",
            "NAIP_QUEUE_URL": self.queues["requests"],
        }

    def mounts(self) -> dict[Path, str]:
        """Return what containers see of this machine."""
        return {self.folder / "settings": "/etc/stacworker", self.folder / "granules": "/data/naip"}

    def depth(self, name: str) -> int:
        """Return how many messages a queue holds, those in somebody's hands included."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.queues[name], AttributeNames=names)["Attributes"]
        return sum(int(found[each]) for each in names)

    def send(self, name: str, bodies: Sequence[str]) -> None:
        """Send messages."""
        for start in range(0, len(bodies), _BATCH):
            entries = [
                {"Id": str(number), "MessageBody": body} for number, body in enumerate(bodies[start : start + _BATCH])
            ]
            answer = self.sqs.send_message_batch(QueueUrl=self.queues[name], Entries=entries)
            if answer.get("Failed"):
                raise Failed(f"not sent: {answer['Failed']}")


@contextmanager
def world() -> Iterator[World]:
    """Start the servers and fill them; all is gone afterwards."""
    with ExitStack() as stack:
        localstack = stack.enter_context(LocalStack())
        postgres = stack.enter_context(Postgres())
        folder = Path(tempfile.mkdtemp(prefix="stacworker-image-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        sqs = boto3.client(
            "sqs",
            endpoint_url=localstack.endpoint_url,
            region_name=REGION,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        stack.callback(sqs.close)
        queues = {}
        for name in SOURCES:
            dead = sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
            arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
            policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 5})
            queues[name] = sqs.create_queue(QueueName=name, Attributes={"RedrivePolicy": policy})["QueueUrl"]
            queues[f"{name}-dead"] = dead
        for name in ("settings", "granules"):
            (folder / name).mkdir()
        settings = {
            "consumers": [
                {
                    "name": "items",
                    "type": "load",
                    "queue_url": queues["items"],
                    "visibility_timeout_s": 20,
                    "wait_time_s": 2,
                }
            ],
            "collections": {"default": {"create_missing": True}},
            "drain_timeout_s": DRAIN_S,
        }
        (folder / "settings" / "stacworker.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        granules = tuple(make_granules(folder / "granules", GRANULES))
        folder.chmod(0o755)  # for the uid of the container
        dsn = postgres.dsn(postgres.create_database())
        yield World(sqs, localstack.endpoint_url, dsn, queues, folder, granules)


def request_for(granule: Granule) -> str:
    """Return the message that asks for the item of a granule."""
    return json.dumps(
        {
            "package_name": "stactools-naip",
            "group_name": "naip",
            "create_item_args": [granule.state, granule.year, f"/data/naip/{granule.path.name}"],
            "collection_id": "naip",
        }
    )


async def until(condition: Callable[[], Any], what: str, within_s: float) -> None:
    """Return once the condition, a coroutine function, holds; raise Failed when it does not in time."""
    deadline = time.monotonic() + within_s
    while not await condition():
        if time.monotonic() > deadline:
            raise Failed(f"not within {within_s:g} s: {what}")
        await asyncio.sleep(0.05)


async def all_is_taken(servers: World) -> None:
    """Return when both queues are empty; raise Failed when they do not get so."""

    async def is_done() -> bool:
        return not any([await asyncio.to_thread(servers.depth, name) for name in SOURCES])

    await until(is_done, "both queues empty", 180)


async def all_is_there(servers: World, catalogue: Catalogue, items: int) -> None:
    """Raise Failed unless the catalogue has all items and those of all granules, and nothing died."""
    dead = {name: servers.depth(f"{name}-dead") for name in SOURCES}
    if any(dead.values()):
        raise Failed(f"dead letters: {dead}")
    if await catalogue.ids("things") != [f"item-{number:05}" for number in range(items)]:
        raise Failed(f"{await catalogue.count('things')} of {items} items are in the catalogue")
    if await catalogue.ids("naip") != sorted(granule.item_id for granule in servers.granules):
        raise Failed(f"{await catalogue.count('naip')} of {GRANULES} generated items are in the catalogue")
    say(f"✓ {items} items and {GRANULES} generated ones are in the catalogue, each once; no dead letters")
