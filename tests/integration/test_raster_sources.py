"""Rasters from the web, and the whole way: an S3 event, a COG, an item that a search finds."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from stacworker.aws import Aws
from stacworker.errors import Permanent, StacworkerError, Transient
from tests.integration import rasters
from tests.integration.aws import Bucket, MakeBucket, MakeQueue
from tests.integration.conftest import MakeWorker
from tests.integration.rasters import running, write
from tests.integration.worker import Catalogue

# What is tested is not pgstac: that loading works on each version, other tests show.
pytestmark = pytest.mark.newest_pgstac

TYPE = "stacworker.generate.raster.generator:RasterGenerator"


class Site:
    """A web server on this machine that gives a raster, trouble, or redirects."""

    def __init__(self, raster: bytes) -> None:
        self.raster = raster
        self.headers: dict[str, str] = {}
        self.url = ""
        self.asked = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Give what the path asks for."""
        self.asked += 1
        name = request.path.rpartition("/")[2]
        if name.isdecimal():
            return web.Response(status=int(name))
        if name == "round":
            return web.Response(status=302, headers={"Location": "/round"})
        if name == "elsewhere":
            return web.Response(status=302, headers={"Location": request.query["to"]})
        if name == "cut.tif":
            response = web.StreamResponse(headers={"Content-Length": str(len(self.raster))})
            await response.prepare(request)
            await response.write(self.raster[:1000])
            assert request.transport is not None
            request.transport.abort()
            return response
        if name == "endless.tif":
            response = web.StreamResponse()
            await response.prepare(request)
            while True:
                await response.write(bytes(1 << 16))
        return web.Response(body=self.raster, headers=self.headers)


@asynccontextmanager
async def served(raster: bytes) -> AsyncIterator[Site]:
    site = Site(raster)
    application = web.Application()
    application.router.add_get("/{path:.*}", site.answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    site.url = f"http://{host}:{port}"
    try:
        yield site
    finally:
        await runner.cleanup()


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Have temporary files in a folder of the test's own, and see that none is left."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def raster(tmp_path: Path) -> bytes:
    return write(tmp_path / "raster.tif", rasters.bands16(300)).read_bytes()


def left_in(folder: Path) -> list[Path]:
    """Return what workers left of their temporary folders."""
    return list(folder.glob("stacworker-children-*"))


async def failed(make: Callable[[str], Awaitable[Any]], url: str) -> StacworkerError:
    with pytest.raises(StacworkerError) as error:
        await make(url)
    return error.value


@pytest.mark.usefixtures("temporary")
async def test_a_url_becomes_a_cog_once(aws: Aws, bucket: MakeBucket, raster: bytes) -> None:
    """With an ETag it is not even fetched a second time; without one it is, and its content tells."""
    async with served(raster) as site, running(aws, f"s3://{bucket().name}", allowed_hosts=["127.0.0.*"]) as working:
        site.headers = {"ETag": '"1"'}
        first = await working.make(f"{site.url}/a/scene.tif?signature=secret")
        assert first["id"] == "scene"
        assert await working.make(f"{site.url}/a/scene.tif?signature=secret") == first
        site.headers = {}
        assert await working.make(f"{site.url}/elsewhere?to=/a/scene.tif", id="scene") == first
        assert working.jobs == 1


@pytest.mark.usefixtures("temporary")
async def test_the_record_of_a_signed_url_holds_no_signature(aws: Aws, bucket: MakeBucket, raster: bytes) -> None:
    """Whoever may read the COGs must not get the rights of who asked for them."""
    cogs = bucket()
    async with served(raster) as site, running(aws, f"s3://{cogs.name}", allowed_hosts=["*"]) as working:
        await working.make(f"{site.url.replace('://', '://user:canary@')}/scene.tif?signature=canary")
    answer = await asyncio.to_thread(cogs.s3.get_object, Bucket=cogs.name, Key="things/scene.tif.json")
    record = json.loads(answer["Body"].read())
    assert record["source"].endswith("/scene.tif")
    assert "canary" not in json.dumps(record)


@pytest.mark.usefixtures("temporary")
async def test_what_the_web_answers_decides(aws: Aws, bucket: MakeBucket, raster: bytes) -> None:
    """What is gone is a dead letter; what may come back is tried again; nothing leads to another host."""
    cogs = bucket()
    async with (
        served(raster) as site,
        running(aws, f"s3://{cogs.name}", allowed_hosts=["127.0.0.1"], max_source_bytes=5_000_000) as working,
    ):
        wanted = {
            f"{site.url}/404": (Permanent, "source_missing"),
            f"{site.url}/400": (Permanent, "source_refused"),
            f"{site.url}/403": (Transient, "source_access_denied"),
            f"{site.url}/429": (Transient, "source_unreachable"),
            f"{site.url}/503": (Transient, "source_unreachable"),
            f"{site.url}/cut.tif": (Transient, "source_unreachable"),
            f"{site.url}/endless.tif": (Permanent, "source_too_large"),
            f"{site.url}/elsewhere?to=http://localhost/x.tif": (Permanent, "source_not_allowed"),
            f"{site.url}/round": (Permanent, "source_refused"),
            f"{site.url}/elsewhere?to=file:///etc/passwd": (Permanent, "source_not_allowed"),
            "http://localhost/x.tif": (Permanent, "source_not_allowed"),
            "http://127.0.0.1:1/x.tif": (Transient, "source_unreachable"),
            "http://[/x.tif": (Permanent, "source_not_allowed"),
        }
        errors = {url: await failed(working.make, url) for url in wanted}
    assert {url: (type(error), error.error_class) for url, error in errors.items()} == wanted
    assert "Contents" not in await asyncio.to_thread(cogs.s3.list_objects_v2, Bucket=cogs.name)


@pytest.mark.usefixtures("temporary")
async def test_a_source_that_does_not_come_is_given_up(aws: Aws, bucket: MakeBucket, raster: bytes) -> None:
    """Whoever sends slowly for ever holds a place for no longer than `transfer_timeout_s`."""
    async with (
        served(raster) as site,
        running(aws, f"s3://{bucket().name}", allowed_hosts=["*"], transfer_timeout_s=0.2) as working,
    ):
        error = await failed(working.make, f"{site.url}/endless.tif")
    assert (type(error), error.error_class) == (Transient, "source_timeout")


async def test_an_s3_event_becomes_a_cog_that_a_search_finds(
    catalogue: Catalogue, worker: MakeWorker, queue: MakeQueue, bucket: MakeBucket, raster: bytes, tmp_path: Path
) -> None:
    """Through the daemon: bucket, queue, COG, catalogue; what is no raster costs only itself."""
    requests, scenes, cogs = queue("requests", max_receive_count=2), bucket("scenes"), bucket("cogs")
    scenes.notify(requests.arn)
    options = {
        "destination": f"s3://{cogs.name}/cogs/",
        "collection": "things",
        "datetime_pattern": r"_(\d{8})",
    }
    running_worker = worker(
        {"name": "requests", "type": "generate", "queue_url": requests.url, "output": "load"},
        generators={"cogs": {"type": TYPE, "processes": 1, "options": options}},
    )
    await running_worker.start()
    await scenes.put("in/not a raster_20240101.tif", b"text")
    for number in range(3):
        await scenes.put(f"in/scene {number}_2024030{number + 1}.tif", raster)
    await catalogue.until_count("things", 3)
    found = await catalogue.search(collections=["things"], bbox=[9, 50.5, 9.1, 50.6])
    assert {item["id"]: item["assets"]["data"]["href"] for item in found} == {
        f"scene {number}_2024030{number + 1}": (
            f"s3://{cogs.name}/cogs/things/scene%20{number}_2024030{number + 1}.tif"
        )
        for number in range(3)
    }
    assert await catalogue.search(collections=["things"], bbox=[20, 50.5, 21, 50.6]) == []
    assert requests.dead_letters is not None
    (letter,) = await requests.dead_letters.drain(1)
    assert letter.attributes["stacworker_error_class"] == "raster_unreadable"
    await requests.wait_until_empty()
    assert await running_worker.stop() == 0
    assert left_in(tmp_path) == []


async def test_wrong_options_stop_the_start(worker: MakeWorker, queue: MakeQueue, cogs: Bucket) -> None:
    """Exit code 2, and a line a mistake that shows no value."""
    options = {"destination": f"s3://{cogs.name}/", "blocksize": 17, "secrt": "canary"}
    started = worker(
        {"name": "requests", "type": "generate", "queue_url": queue().url},
        generators={"cogs": {"type": TYPE, "options": options}},
    )
    await started.start(ready=False)
    assert await started.ended() == 2
    assert "generators.cogs.options.blocksize" in started.log()
    assert "generators.cogs.options.secrt" in started.log()
    assert "canary" not in started.log()


@pytest.fixture
def cogs(bucket: MakeBucket) -> Bucket:
    return bucket("cogs")
