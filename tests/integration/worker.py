"""A real `stacworker run` process under test, and the catalogue it writes to."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from stacworker.testing.localstack import LocalStack

FIXTURES = Path(__file__).parent / "data"


class Worker:
    """One process of the daemon, started as a user starts it."""

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        env: Mapping[str, str],
        name: str = "worker",
        module: str = "stacworker",
        prefix: Sequence[str] = (),
    ) -> None:
        """`prefix` is a command that starts the worker's own, such as setpriv."""
        self._command = [*prefix, sys.executable, "-m", module, "run", "--config"]
        self.log_file = folder / f"{name}.log"
        self._config = folder / f"{name}.yaml"
        self._config.write_text(yaml.safe_dump({"http": {"host": "127.0.0.1", "port": 0}, **settings}))
        self._env = {**os.environ, **env}
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    async def start(self, *, ready: bool = True) -> None:
        """Start; return once it is ready."""
        self.spawn()
        if ready:
            await self.until(self.is_ready, within_s=30)

    def spawn(self) -> None:
        """Start, and wait for nothing."""
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, str(self._config)],
                env=self._env,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        self._port = 0

    async def until(self, condition: Callable[[], Any], within_s: float = 30.0) -> None:
        """Return once the condition holds; fail with the log when it does not, or when the process ends."""
        deadline = time.monotonic() + within_s
        while not await asyncio.to_thread(condition):
            if self.exit_code is not None:
                pytest.fail(f"the worker ended with {self.exit_code}:\n{self.log()}")
            if time.monotonic() > deadline:
                pytest.fail(f"not within {within_s} s:\n{self.log()}")
            await asyncio.sleep(0.05)

    def log(self) -> str:
        """Return the end of its log."""
        return self.log_file.read_text(errors="replace")[-6000:]

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return its log lines with this event name."""
        lines = [line for line in self.log_file.read_text().splitlines() if line.startswith("{")]
        return [event for event in map(json.loads, lines) if event.get("event") == name]

    def get(self, path: str) -> tuple[int, str]:
        """Ask its HTTP port; (0, "") while it does not answer."""
        if not self._port:
            listening = self.events("http.listening")
            if not listening:
                return 0, ""
            self._port = listening[-1]["port"]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def is_ready(self) -> bool:
        """Tell whether it polls."""
        return self.get("/readyz")[0] == 200

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that carry these labels."""
        return metric_in(self.get("/metrics")[1], name, **labels)

    def outcomes(self) -> dict[str, int]:
        """Return how many messages ended in each outcome, zeros left out."""
        names = ("acked", "retried", "dead_lettered", "released")
        found = {name: int(self.metric("messages_total", outcome=name)) for name in names}
        return {name: count for name, count in found.items() if count}

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Its exit code, None while it runs."""
        return self._process.poll() if self._process else None

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def ended(self, within_s: float = 30.0) -> int:
        """Wait for it to end; return its exit code."""
        assert self._process is not None
        return await asyncio.to_thread(self._process.wait, within_s)

    async def stop(self) -> int:
        """Drain it, and return its exit code."""
        if self.exit_code is None:
            self.signal(signal.SIGTERM)
        return await self.ended()

    async def kill(self) -> None:
        """Kill it as a crash of the machine would."""
        self.signal(signal.SIGKILL)
        await self.ended()

    def cleanup(self) -> None:
        """Kill it if it still runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def metric_in(text: str, name: str, **labels: str) -> float:
    """Return the sum of a metric's samples with these labels in what `/metrics` answered."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"stacworker_{name}" and labels.items() <= sample.labels.items()
    )


class Catalogue:
    """Reads pgstac back, as a STAC API would."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def add_collection(self, collection_id: str, partition_trunc: str | None = None) -> None:
        """Create a small collection."""
        body = {
            "id": collection_id,
            "type": "Collection",
            "stac_version": "1.0.0",
            "description": collection_id,
            "license": "other",
            "links": [],
            "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
        }
        await self._connection.execute("SELECT pgstac.create_collection($1::jsonb)", json.dumps(body))
        if partition_trunc:
            await self._connection.execute(
                "UPDATE pgstac.collections SET partition_trunc = $2 WHERE id = $1", collection_id, partition_trunc
            )

    async def ids(self, collection_id: str) -> list[str]:
        """Return the ids of all rows of a collection, sorted: an id with two rows is there twice."""
        rows = await self._connection.fetch(
            "SELECT id FROM pgstac.items WHERE collection = $1 ORDER BY id", collection_id
        )
        return [row["id"] for row in rows]

    async def count(self, collection_id: str) -> int:
        """Return the number of rows of a collection."""
        return int(
            await self._connection.fetchval("SELECT count(*) FROM pgstac.items WHERE collection = $1", collection_id)
        )

    async def value(self, query: str) -> Any:
        """Return the one value that a query gives."""
        return await self._connection.fetchval(query)

    async def search(self, **query: Any) -> list[dict[str, Any]]:
        """Return the items that pgstac's search finds."""
        found = await self._connection.fetchval("SELECT pgstac.search($1::jsonb)", json.dumps({"limit": 1000, **query}))
        features: list[dict[str, Any]] = json.loads(found)["features"]
        return features

    async def until_count(self, collection_id: str, expected: int, within_s: float = 60.0) -> None:
        """Return once the collection has this many rows."""
        deadline = time.monotonic() + within_s
        while (found := await self.count(collection_id)) != expected:
            if time.monotonic() > deadline:
                pytest.fail(f"{collection_id} has {found} items, expected {expected}")
            await asyncio.sleep(0.05)


@asynccontextmanager
async def catalogue_at(dsn: str) -> AsyncIterator[Catalogue]:
    """Open a catalogue for reading back."""
    connection = await asyncpg.connect(dsn, server_settings={"search_path": "pgstac,public"})
    try:
        yield Catalogue(connection)
    finally:
        await connection.close()


def item(
    item_id: str, collection: str = "things", datetime: str = "2024-03-05T10:00:00Z", **more: Any
) -> dict[str, Any]:
    """Return a small valid item."""
    body = deepcopy(_ITEM)
    body.update(id=item_id, collection=collection, **more)
    if datetime:
        body["properties"]["datetime"] = datetime
    return body


_ITEM: dict[str, Any] = {
    "type": "Feature",
    "stac_version": "1.0.0",
    "id": "",
    "collection": "",
    "geometry": {"type": "Point", "coordinates": [10.0, 50.0]},
    "bbox": [10.0, 50.0, 10.0, 50.0],
    "properties": {"datetime": None, "note": "arn:aws:s3:::not-an-event aws:s3"},
    "links": [],
    "assets": {"data": {"href": "s3://somewhere/data.tif", "type": "image/tiff"}},
}


def settings_for(dsn: str, localstack: LocalStack, *consumers: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return settings of a worker against LocalStack and a database."""
    return {
        "aws": {"endpoint_url": localstack.endpoint_url, "region": "us-east-1"},
        "database": {"dsn": dsn},
        "consumers": [{"wait_time_s": 1, "backoff_base_s": 0.5, **consumer} for consumer in consumers],
        **more,
    }
