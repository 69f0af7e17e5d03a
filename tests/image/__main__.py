"""Run the images that scripts/image has built, against LocalStack and a throw-away Postgres."""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
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
from tests.image.container import Container, Failed, Host, a_uid, free_port
from tests.image.contents import check_contents, check_nothing_of_this_machine
from tests.integration.worker import Catalogue, catalogue_at, item

ITEMS = 20_000
GRANULES = 300
DRAIN_S = 30
GRACE_S = DRAIN_S + 20
"""The drain, 15 s for what does not let itself be cancelled, and some for podman itself."""
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
        for name in ("items", "requests"):
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


class Trial:
    """What is done with the images, step by step; each step raises Failed when something is wrong."""

    def __init__(self, host: Host, world: World, image: str) -> None:
        self._host = host
        self._world = world
        self._image = image
        self._prefix = f"stacworker-image-{secrets.token_hex(3)}"
        self._made: list[Container] = []

    def container(self, image: str | None = None) -> Container:
        """Return a container to be, with a uid of its own."""
        made = Container(
            self._host,
            f"{self._prefix}-{len(self._made)}",
            image or self._image,
            a_uid(),
            self._world.env(),
            self._world.mounts(),
            free_port(),
        )
        self._made.append(made)
        return made

    def close(self) -> None:
        """Remove the containers."""
        for container in self._made:
            container.remove()

    def commands(self) -> None:
        """Set up the database and look at everything, with the image's own commands."""
        for command in (("migrate", "--pgstac"), ("check",), ("pipelines", "list")):
            done = self.container().command(*command)
            say(f"▸ stacworker {' '.join(command)}: exit code {done.returncode}")
            for line in (done.stdout or done.stderr).strip().splitlines():
                say(f"    {line}")
            if done.returncode:
                raise Failed(f"stacworker {' '.join(command)}: {done.stderr}")

    async def interrupted(self, catalogue: Catalogue) -> None:
        """SIGTERM in the middle of the work: a drain inside the grace period, exit code 0."""
        worker = self.container()
        say(f"▸ a worker is ready {await worker.start():.2f} s after `podman run`")
        status = await asyncio.to_thread(worker.status)
        if status["Uid"].split()[1] == "0" or int(status["CapEff"], 16) or status["NoNewPrivs"] != "1":
            raise Failed(f"it has more rights than it was given: {status}")
        if not await asyncio.to_thread(worker.is_healthy):
            raise Failed("the image's HEALTHCHECK says that a ready worker is not healthy")
        say(f"  uid {status['Uid'].split()[1]}, capabilities {status['CapEff']}, healthy by its HEALTHCHECK")

        bodies = [json.dumps(item(f"item-{number:05}")) for number in range(ITEMS)]
        sending = asyncio.create_task(asyncio.to_thread(self._world.send, "items", bodies))
        requests = [request_for(granule) for granule in self._world.granules]
        await asyncio.to_thread(self._world.send, "requests", requests)

        async def is_under_way() -> bool:
            return await catalogue.count("things") > ITEMS // 20 and await catalogue.count("naip") > 0

        await until(is_under_way, "some items loaded, some generated", 120)
        before = await catalogue.count("things")
        code, took_s = await worker.stop(GRACE_S)
        after, generated = await catalogue.count("things"), await catalogue.count("naip")
        say(
            f"▸ SIGTERM after {before} of {ITEMS} items: exit code {code} after {took_s:.1f} s (of {GRACE_S} s), "
            f"{after - before} more loaded meanwhile, {generated} of {GRANULES} generated so far"
        )
        if code != 0 or took_s >= GRACE_S:
            raise Failed(f"no clean drain:\n{worker.log()[-3000:]}")
        if not (worker.events("drain.started") and worker.events("exit.clean")):
            raise Failed(f"the log does not tell of a drain:\n{worker.log()[-3000:]}")
        if after >= ITEMS:
            raise Failed("SIGTERM came when all was done: this says nothing")
        await sending

    async def finished(self, catalogue: Catalogue) -> None:
        """Another worker does the rest: everything is there, once."""
        worker = self.container()
        await worker.start()
        sources = ("items", "requests")

        async def is_done() -> bool:
            return not any([await asyncio.to_thread(self._world.depth, name) for name in sources])

        await until(is_done, "both queues empty", 180)
        code, took_s = await worker.stop(GRACE_S)
        say(f"▸ a second worker did the rest; SIGTERM while idle: exit code {code} after {took_s:.1f} s")
        if code != 0:
            raise Failed(f"no clean end:\n{worker.log()[-3000:]}")
        dead = {name: self._world.depth(f"{name}-dead") for name in sources}
        if any(dead.values()):
            raise Failed(f"dead letters: {dead}")
        if await catalogue.ids("things") != [f"item-{number:05}" for number in range(ITEMS)]:
            raise Failed(f"{await catalogue.count('things')} of {ITEMS} items are in the catalogue")
        if await catalogue.ids("naip") != sorted(granule.item_id for granule in self._world.granules):
            raise Failed(f"{await catalogue.count('naip')} of {GRANULES} generated items are in the catalogue")
        say(f"✓ {ITEMS} items and {GRANULES} generated ones are in the catalogue, each once; no dead letters")


async def _trial(arguments: argparse.Namespace) -> None:
    host = Host([*arguments.podman.split()])
    with world() as servers:
        trial = Trial(host, servers, arguments.pipelines_image)
        try:
            locks = ["runtime.txt", *(f"extra-{extra}.txt" for extra in arguments.extras.split())]
            told = check_contents(host, trial.container(arguments.image), arguments.image, locks)
            images = (arguments.base, arguments.image, arguments.pipelines_image)
            check_nothing_of_this_machine(*map(trial.container, images))
            for name, text in told.items():
                say(f"▸ {name}: {text}")
            for image in images:
                say(f"▸ size of {image.removeprefix('docker.io/library/')}: {host.image(image)['Size'] / 1e6:.0f} MB")
            trial.commands()
            async with catalogue_at(servers.dsn) as catalogue:
                await trial.interrupted(catalogue)
                await trial.finished(catalogue)
        finally:
            trial.close()


def main() -> int:
    """Return 0 when all is as it must be."""
    parser = argparse.ArgumentParser(prog="python -m tests.image", description=__doc__)
    parser.add_argument("--podman", required=True, help="the command with its global options")
    parser.add_argument("--base", required=True, help="the image that the others are made from")
    parser.add_argument("--image", required=True)
    parser.add_argument("--pipelines-image", required=True, help="the image with examples/pipelines added")
    parser.add_argument("--extras", required=True, help="the extras that the image was built with")
    try:
        asyncio.run(_trial(parser.parse_args()))
    except Failed as failed:
        say(f"✗ {failed}")
        return 1
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
