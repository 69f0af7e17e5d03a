"""The real worker as a process of its own: its settings file, its metrics, its end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from prometheus_client.parser import text_string_to_metric_families

from stacworker.demo.messages import PACKAGE
from stacworker.demo.world import ENVIRONMENT, REGION, World
from stacworker.errors import Transient

START_TIMEOUT_S = 60.0
DRAIN_TIMEOUT_S = 20
_ASK_EVERY_S = 0.1
_LAST_LINES = 20
_LINE_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Counts:
    """What the worker's metrics say, summed over its queues and collections."""

    received: int = 0
    acked: int = 0
    dead_lettered: int = 0
    retried: int = 0
    generated: int = 0
    loaded: int = 0

    @property
    def ended(self) -> int:
        """Messages that will not come again."""
        return self.acked + self.dead_lettered


def write_settings(path: Path, world: World, dsn: str) -> int:
    """Write the worker's settings; return the port it will listen on."""
    port = _free_port()
    common: dict[str, Any] = {"wait_time_s": 1, "backoff_base_s": 0.5, "max_pollers": 4}
    settings = {
        "aws": {"endpoint_url": world.endpoint_url, "region": REGION},
        "database": {"dsn": dsn},
        "consumers": [
            {"name": "items", "type": "load", "queue_url": world.items.url, **common},
            {"name": "requests", "type": "generate", "output": "load", "queue_url": world.requests.url, **common},
        ],
        "generators": {
            PACKAGE: {
                "type": "stactools",
                "packages": [f"{PACKAGE}=={version(PACKAGE)}"],
                "local_paths": [str(path.parent.resolve())],
            }
        },
        "http": {"host": "127.0.0.1", "port": port},
        "drain_timeout_s": DRAIN_TIMEOUT_S,
    }
    path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return port


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Worker:
    """A worker that runs."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, log: Path, http: aiohttp.ClientSession) -> None:
        self.url = url
        self.log = log
        self._process = process
        self._http = http

    async def counts(self) -> Counts:
        """Read the worker's metrics. Raises Transient when it does not answer."""
        try:
            return read_counts(await self._get("/metrics"))
        except (aiohttp.ClientError, TimeoutError) as error:
            self._check_running()
            raise Transient(f"the worker does not answer: {type(error).__name__}") from error

    async def ready(self) -> None:
        """Return when the worker polls its queues; raise Transient when it does not get there."""
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while True:
                    try:
                        await self._get("/readyz")
                    except aiohttp.ClientError:
                        await asyncio.sleep(_ASK_EVERY_S)
                    else:
                        return
        except TimeoutError:
            raise Transient(f"the worker was not ready within {START_TIMEOUT_S:g} s") from None

    async def stop(self) -> int:
        """Send SIGTERM and return the exit code of the drain; one that takes too long is killed."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S + 10):
                return await self._process.wait()
        except TimeoutError:
            self._process.kill()
            return await self._process.wait()

    def last_lines(self) -> list[str]:
        """Return the end of the worker's log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return [line[:_LINE_CHARACTERS] for line in lines[-_LAST_LINES:]]

    def _check_running(self) -> None:
        if self._process.returncode is not None:
            raise Transient(f"the worker has ended with exit code {self._process.returncode}")

    async def _get(self, path: str) -> str:
        self._check_running()
        async with self._http.get(self.url + path, raise_for_status=True) as answer:
            return await answer.text()


async def run_command(*words: str) -> tuple[int, str]:
    """Run `stacworker …` as a user would; return its exit code and all that it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stacworker", *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=_environment(os.environ),
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return await process.wait(), output.decode("utf-8", "replace")


@asynccontextmanager
async def running_worker(config: Path, port: int, log: Path) -> AsyncIterator[Worker]:
    """Start `stacworker run` on a settings file, its log in a file; stop it at the end."""
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "stacworker", "run", "--config", str(config)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            # What is killed cannot tidy up; the demo's folder is removed with all that is in it.
            env=_environment(os.environ) | {"TMPDIR": str(config.parent)},
            # A Ctrl-C is for the demo, which then drains the worker.
            process_group=0,
        )
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as http:
        worker = Worker(process, f"http://127.0.0.1:{port}", log, http)
        try:
            yield worker
        finally:
            await worker.stop()


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in environ.items() if not name.startswith(("STACWORKER_", "AWS_", "PG"))}
    return kept | dict(ENVIRONMENT)


def read_counts(text: str) -> Counts:
    """Sum up metrics in Prometheus' text format."""
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = f"{sample.name}/{sample.labels.get('outcome', '')}"
            sums[key] = sums.get(key, 0.0) + sample.value

    def total(name: str, outcome: str = "") -> int:
        return int(sums.get(f"stacworker_{name}/{outcome}", 0))

    return Counts(
        received=total("messages_received_total"),
        acked=total("messages_total", "acked"),
        dead_lettered=total("messages_total", "dead_lettered"),
        retried=total("messages_total", "retried"),
        generated=total("items_generated_total", "ok"),
        loaded=total("items_loaded_total"),
    )
