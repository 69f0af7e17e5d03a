"""Run the images that scripts/image has built, against LocalStack and a throw-away Postgres."""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys

from tests.image.container import Container, Failed, Host, a_uid, free_port
from tests.image.contents import check_contents, check_nothing_of_this_machine
from tests.image.world import DRAIN_S, GRANULES, World, all_is_taken, all_is_there, request_for, say, until, world
from tests.integration.worker import Catalogue, catalogue_at, item

ITEMS = 20_000
GRACE_S = DRAIN_S + 20
"""The drain, 15 s for what does not let itself be cancelled, and some for podman itself."""
EXIT_SETTINGS = 2
MISSING = "is missing: make it with `stacworker pipelines install`"
GENERATORS = '{"naip": {"type": "stactools", "packages": ["stactools-naip==0.5.0"]}}'
"""The example of deploy/ecs/stacworker.yaml."""


class Trial:
    """What is done with the images, step by step; each step raises Failed when something is wrong."""

    def __init__(self, host: Host, world: World, image: str, plain: str) -> None:
        self._host = host
        self._world = world
        self._image = image
        self._plain = plain
        self._prefix = f"stacworker-image-{secrets.token_hex(3)}"
        self._made: list[Container] = []

    def container(self, image: str | None = None, env: dict[str, str] | None = None) -> Container:
        """Return a container to be, with a uid of its own."""
        made = Container(
            self._host,
            f"{self._prefix}-{len(self._made)}",
            image or self._image,
            a_uid(),
            env or self._world.env(),
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

    def generators(self, image: str) -> None:
        """Tell images of a generator as deploy/ecs does: the one with its environment starts it, the plain one ends."""
        consumer = {"name": "requests", "type": "generate", "queue_url": self._world.queues["requests"]}
        elsewhere = ("STACWORKER_CONFIG", "STACWORKER_PIPELINES__FOLDER", "STACWORKER_PIPELINES__ONLY")
        env = {name: value for name, value in self._world.env().items() if name not in elsewhere}
        env |= {"STACWORKER_CONSUMERS": json.dumps([consumer]), "STACWORKER_GENERATORS": GENERATORS}
        done = self.container(image, env).command("check")
        found = [line for line in done.stdout.splitlines() if "generator naip: started" in line]
        if done.returncode or not found:
            raise Failed(f"the generator of the settings did not start: {done.stdout}{done.stderr}")
        say(f"▸ {image}: {found[0].split(maxsplit=1)[1]}")
        plain = self.container(self._plain, env).command("run")
        if plain.returncode != EXIT_SETTINGS or MISSING not in plain.stdout + plain.stderr:
            raise Failed(f"an image without the environment does not say so: {plain.stdout}{plain.stderr}")

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
        await all_is_taken(self._world)
        code, took_s = await worker.stop(GRACE_S)
        say(f"▸ a second worker did the rest; SIGTERM while idle: exit code {code} after {took_s:.1f} s")
        if code != 0:
            raise Failed(f"no clean end:\n{worker.log()[-3000:]}")
        await all_is_there(self._world, catalogue, ITEMS)


async def _trial(arguments: argparse.Namespace) -> None:
    host = Host([*arguments.podman.split()])
    with world() as servers:
        trial = Trial(host, servers, arguments.pipelines_image, arguments.image)
        try:
            locks = ["runtime.txt", *(f"extra-{extra}.txt" for extra in arguments.extras.split())]
            told = check_contents(host, trial.container(arguments.image), arguments.image, locks)
            images = (arguments.base, arguments.image, arguments.pipelines_image, arguments.generators_image)
            check_nothing_of_this_machine(*map(trial.container, images))
            for name, text in told.items():
                say(f"▸ {name}: {text}")
            for image in images:
                say(f"▸ size of {image.removeprefix('docker.io/library/')}: {host.image(image)['Size'] / 1e6:.0f} MB")
            trial.commands()
            trial.generators(arguments.generators_image)
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
    parser.add_argument("--generators-image", required=True, help="the image with the generator of deploy/k8s added")
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
