"""The demo from its beginning to its end."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from stacworker.demo.messages import PACKAGE, Plan, collections, more_items, plan
from stacworker.demo.rasters import Granule, make_granules
from stacworker.demo.result import Result
from stacworker.demo.show import Show
from stacworker.demo.verify import Observed, look_up, problems, read_dead_letter
from stacworker.demo.worker import Counts, Worker, run_command, running_worker, write_settings
from stacworker.demo.world import ENVIRONMENT, World, embedded_aws, environment, make_world
from stacworker.errors import ConfigError, StacworkerError, Transient
from stacworker.ops.outgoing import Outgoing
from stacworker.ops.send import send

_NEEDED = ("moto", "flask", "rasterio", "stactools.naip")
_ASK_EVERY_S = 0.2
_STALLED_S = 45.0
_PUTS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Options:
    """How the demo is run: how many rasters, whether it stays, which emulator it uses (None: its own)."""

    granules: int = 200
    keep: bool = False
    endpoint_url: str | None = None


def run_demo(options: Options, show: Show) -> Result:
    """Run the demo and return what it came to; everything that it started is gone at the end.

    Raises ConfigError when something it needs is not installed, Transient when the worker breaks.
    """
    _check_installed()
    from stacworker.testing.postgres import Postgres  # noqa: PLC0415 - slow to import

    show.step("starting a throw-away PostgreSQL with PostGIS")
    with (
        _sigterm_is_ctrl_c(),
        environment(),
        tempfile.TemporaryDirectory(prefix="stacworker-demo-") as folder,
        Postgres() as postgres,
        nullcontext(options.endpoint_url) if options.endpoint_url else embedded_aws() as endpoint_url,
    ):
        show.step(f"SQS, SNS and S3 are served at {endpoint_url}")
        dsn = postgres.dsn(postgres.create_database())
        try:
            return asyncio.run(_Demo(options, show, Path(folder), dsn).run(endpoint_url))
        except asyncio.CancelledError:  # SIGTERM
            raise KeyboardInterrupt from None


def _check_installed() -> None:
    missing = [name for name in _NEEDED if not _is_installed(name)]
    if missing:
        raise ConfigError(
            f"the demo needs packages that are not installed ({', '.join(missing)}): pip install 'stacworker[demo]'"
        )


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False


@contextmanager
def _sigterm_is_ctrl_c() -> Iterator[None]:
    """Clean up on SIGTERM as on Ctrl-C."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Demo:
    def __init__(self, options: Options, show: Show, folder: Path, dsn: str) -> None:
        self._options = options
        self._show = show
        self._folder = folder
        self._dsn = dsn
        self._config = folder / "stacworker.yaml"

    async def run(self, endpoint_url: str) -> Result:
        """Do everything in its order."""
        if (task := asyncio.current_task()) is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        async with make_world(endpoint_url) as world:
            granules = self._make_granules()
            to_send = plan(granules, self._folder, world.bucket)
            port = write_settings(self._config, world, self._dsn)
            await self._prepare_catalogue()
            log = self._folder / "worker.log"
            self._show.step(f"stacworker run --config {self._config} (its log: {log})")
            async with running_worker(self._config, port, log) as worker:
                try:
                    result = await self._run_worker(worker, world, to_send)
                except (StacworkerError, ExceptionGroup):
                    self._show.log(worker.last_lines())
                    raise
                if result.problems:
                    self._show.log(worker.last_lines())
        return result

    async def _run_worker(self, worker: Worker, world: World, to_send: Plan) -> Result:
        """Have the worker do everything, end it, and compare what there is with what was planned."""
        await worker.ready()
        counts, seconds = await self._work(worker, world, to_send)
        observed = Observed(
            counts=counts,
            exit_code=0 if self._options.keep else await self._stop(worker),
            catalogue=await look_up(self._dsn),
            letters=[read_dead_letter(message) for message in await world.dead_letters()],
            waiting=await world.waiting(),
        )
        result = Result(observed, seconds, problems(to_send, observed))
        self._show.result(to_send, result)
        if self._options.keep:
            await self._keep(worker, world)
            result = result.after_exit(await self._stop(worker))
        return result

    def _make_granules(self) -> list[Granule]:
        self._show.step(f"making {self._options.granules} small GeoTIFFs with NAIP names")
        tiles = self._folder / "tiles"
        tiles.mkdir()
        return list(make_granules(tiles, self._options.granules))

    async def _prepare_catalogue(self) -> None:
        self._show.step("preparing the catalogue")
        file = self._folder / "collections.json"
        file.write_text(json.dumps(collections()), encoding="utf-8")
        config = ("--config", str(self._config))
        for words in (("migrate", "--pgstac"), ("collections", "load", str(file)), ("check",)):
            code, output = await run_command(*words, *config)
            self._show.command(("stacworker", *words, *config), output)
            if code != 0:
                raise Transient(f"`stacworker {words[0]}` ended with exit code {code}")

    async def _work(self, worker: Worker, world: World, to_send: Plan) -> tuple[Counts, float]:
        """Send everything and wait until the worker has come to an end with it; return counts and seconds."""
        self._show.step(
            f"sending {len(to_send.requests)} requests, {len(to_send.items)} messages with items, and "
            f"{len(to_send.objects)} objects to the bucket, which tells the queue by way of a topic"
        )
        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            group.create_task(_send_all(world, to_send))
            waiting = group.create_task(self._wait(worker, world, to_send))
        return waiting.result(), time.monotonic() - started

    async def _wait(self, worker: Worker, world: World, to_send: Plan) -> Counts:
        before, moved_at = Counts(), time.monotonic()
        with self._show.progress(to_send) as show:
            while True:
                counts = await worker.counts()
                show(counts)
                if counts.ended >= to_send.messages and not await world.waiting():
                    return counts
                if counts != before:
                    before, moved_at = counts, time.monotonic()
                elif time.monotonic() - moved_at > _STALLED_S:
                    return counts  # what is missing is told in the end
                await asyncio.sleep(_ASK_EVERY_S)

    async def _stop(self, worker: Worker) -> int:
        code = await worker.stop()
        self._show.step(f"SIGTERM: the worker drained and ended with exit code {code}")
        return code

    async def _keep(self, worker: Worker, world: World) -> None:
        """Say how to look at it and stay until Ctrl-C or SIGTERM."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        aws = " ".join(f"{name}={ENVIRONMENT[name]}" for name in list(ENVIRONMENT)[:3])
        more = self._folder / "more-items.ndjson"
        more.write_text("\n".join(json.dumps(item) for item in more_items(10)), encoding="utf-8")
        self._show.step("It stays until Ctrl-C. To look at it, and to send more:")
        for text in (
            f"curl {worker.url}/readyz",
            f"curl {worker.url}/metrics",
            f"psql {self._dsn} -c 'SELECT collection, count(*) FROM pgstac.items GROUP BY 1'",  # noqa: S608 - only shown
            f"tail -f {worker.log}",
            f"export {aws} AWS_ENDPOINT_URL={world.endpoint_url}",
            f"stacworker send {world.items.url} {more}",
            f"stacworker send {world.requests.url}   # ItemRequests for {PACKAGE}, one a line",
        ):
            self._show.line(text)
        await stop.wait()


async def _send_all(world: World, to_send: Plan) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_send(world, world.requests.url, to_send.requests))
        group.create_task(_send(world, world.items.url, to_send.items))
        group.create_task(_upload(world, to_send))
        for body in to_send.notifications:
            group.create_task(world.sns.publish(TopicArn=world.topic_arn, Message=body))


async def _send(world: World, url: str, bodies: Sequence[str]) -> None:
    messages = [Outgoing(f"message {number}", body, len(body.encode())) for number, body in enumerate(bodies, 1)]
    report = await send(world.sqs, url, messages)
    if not report.complete:
        raise Transient(f"not everything could be sent: {report.stopped or report.unsent[0].reason}")


async def _upload(world: World, to_send: Plan) -> None:
    slots = asyncio.Semaphore(_PUTS_AT_ONCE)

    async def put(key: str, data: bytes) -> None:
        async with slots:
            await world.s3.put_object(Bucket=world.bucket, Key=key, Body=data, ContentType="application/geo+json")

    async with asyncio.TaskGroup() as group:
        for key, data in to_send.objects.items():
            group.create_task(put(key, data))
