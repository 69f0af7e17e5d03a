"""Files → COGs in S3 and items that point at them: with a real child process, GDAL and LocalStack."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import botocore.exceptions
import numpy as np
import pytest
import rasterio
from rasterio import Affine
from rasterio.control import GroundControlPoint
from rasterio.warp import transform
from rio_cogeo import cog_validate

from stacworker.api import Document, Request, Version
from stacworker.aws import Aws
from stacworker.errors import ConfigError, Permanent, StacworkerError, Transient, Unavailable
from stacworker.generate.recipe import Limits
from stacworker.generate.transfer import upload as upload_module
from stacworker.load.prepare import prepare
from tests.integration import rasters
from tests.integration.aws import Bucket, MakeBucket
from tests.integration.rasters import NORTH, PIXEL_M, WEST, WHEN, running, write


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Have temporary files in a folder of the test's own, and see that none is left."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def cogs(bucket: MakeBucket) -> Bucket:
    """Give the bucket where COGs go."""
    return bucket("cogs")


def at(bucket: Bucket) -> str:
    return f"s3://{bucket.name}/cogs/"


async def stored(bucket: Bucket) -> dict[str, Any]:
    """Return what is in a bucket, by key."""
    found = await asyncio.to_thread(bucket.s3.list_objects_v2, Bucket=bucket.name)
    return {entry["Key"]: entry for entry in found.get("Contents", [])}


async def fetched(bucket: Bucket, item: dict[str, Any], path: Path, asset: str = "data") -> Path:
    """Fetch an item's COG; it must be the file that the item describes, and valid."""
    described = item["assets"][asset]
    key = described["href"].removeprefix(f"s3://{bucket.name}/")
    await asyncio.to_thread(bucket.s3.download_file, bucket.name, key, str(path))
    data = await asyncio.to_thread(path.read_bytes)
    assert described["file:size"] == len(data)
    assert described["file:checksum"] == "1220" + hashlib.sha256(data).hexdigest()
    assert cog_validate(path, strict=True, quiet=True) == (True, [], [])
    return path


async def refused(working: rasters.Running, href: str, **body: Any) -> StacworkerError:
    with pytest.raises(StacworkerError) as error:
        await working.make(href, **body)
    return error.value


async def test_a_file_becomes_a_cog_and_an_item(
    aws: Aws, bucket: MakeBucket, cogs: Bucket, tmp_path: Path, s3: Any
) -> None:
    """The item is one that the catalogue takes, points at the COG, and has its box in degrees."""
    source = bucket()
    pixels = rasters.bands16()
    href = await source.put("in/scene.tif", write(tmp_path / "scene.tif", pixels).read_bytes())
    async with running(aws, at(cogs)) as working:
        item = await working.make(href)
    assert set(await stored(cogs)) == {"cogs/things/scene.tif", "cogs/things/scene.tif.json"}
    head = s3.head_object(Bucket=cogs.name, Key="cogs/things/scene.tif", ChecksumMode="ENABLED")
    assert head["ContentType"] == "image/tiff; application=geotiff; profile=cloud-optimized"
    checksum = bytes.fromhex(item["assets"]["data"]["file:checksum"][4:])
    assert base64.b64decode(head["ChecksumSHA256"]) == checksum
    with rasterio.open(await fetched(cogs, item, tmp_path / "cog.tif")) as cog:
        assert np.array_equal(cog.read(), pixels)
        assert cog.overviews(1) == [2, 4]
        assert (cog.compression.name, cog.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"]) == ("deflate", "2")
        assert set(cog.block_shapes) == {(512, 512)}
    size = 1100 * PIXEL_M
    longitudes, latitudes = transform(
        "EPSG:32632", "EPSG:4326", [WEST, WEST + size, WEST + size, WEST], [NORTH, NORTH, NORTH - size, NORTH - size]
    )
    corners = [min(longitudes), min(latitudes), max(longitudes), max(latitudes)]
    assert item["bbox"] == pytest.approx(corners, abs=1e-4)
    assert item["properties"]["datetime"] == WHEN
    assert item["properties"]["proj:epsg"] == 32632
    assert item["properties"]["proj:shape"] == [1100, 1100]
    assert item["properties"]["proj:bbox"] == [WEST, NORTH - size, WEST + size, NORTH]
    bands = item["assets"]["data"]["raster:bands"]
    assert [band["data_type"] for band in bands] == ["uint16"] * 4
    assert [band["statistics"]["valid_percent"] for band in bands] == pytest.approx([100] * 4)
    assert item["assets"]["data"]["href"] == f"s3://{cogs.name}/cogs/things/scene.tif"
    assert (item["id"], item["collection"]) == ("scene", "things")
    prepared(item)


async def test_overviews_of_categories_hold_only_categories(aws: Aws, cogs: Bucket, tmp_path: Path) -> None:
    """A palette makes categories: no class appears that is not in the file, overviews and reprojection included."""
    path = write(tmp_path / "cover.tif", rasters.classes(), colors=rasters.COLORS)
    async with running(aws, at(cogs), local_paths=[str(tmp_path)], crs="EPSG:3857") as working:
        item = await working.make(str(path))
    cog = await fetched(cogs, item, tmp_path / "cog.tif")
    for level in ({}, {"OVERVIEW_LEVEL": 0}, {"OVERVIEW_LEVEL": 1}):
        with rasterio.open(cog, **level) as dataset:
            assert dataset.crs.to_epsg() == 3857
            assert set(np.unique(dataset.read(masked=True).compressed())) == {1, 5, 200}
    with rasterio.open(cog) as dataset:
        assert {value: dataset.colormap(1)[value] for value in rasters.COLORS} == rasters.COLORS
        assert dataset.nodata == 0  # in the corners that the turn left empty: no class has it
        assert not dataset.dataset_mask().all()


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
@pytest.mark.parametrize("least", [0, 1])
async def test_corners_that_a_turn_leaves_empty_are_no_data(
    aws: Aws, cogs: Bucket, tmp_path: Path, bands: int, least: int
) -> None:
    """Reprojected without a value for no data: one that is not used becomes it, or there is a mask."""
    pixels = np.full((bands, 700, 700), 9, "uint16")
    pixels[:, 0, 0], pixels[:, 0, 1] = least, 65535
    path = write(tmp_path / "scene.tif", pixels)
    async with running(aws, at(cogs), local_paths=[str(tmp_path)], crs="EPSG:3857") as working:
        item = await working.make(str(path))
    with rasterio.open(await fetched(cogs, item, tmp_path / "cog.tif")) as cog:
        assert (cog.count, cog.nodata) == (bands, None if least == 0 else 0)
        valid = cog.dataset_mask() > 0
        assert 0.98 < valid.mean() < 1
        assert set(np.unique(cog.read(1)[valid])) <= set(range(least, 10)) | set(range(9, 65536))
        assert (cog.read(1)[~valid] == 0).all()


@pytest.mark.parametrize("how", ["turned", "points"])
async def test_a_raster_that_is_not_north_up_becomes_it(aws: Aws, cogs: Bucket, tmp_path: Path, how: str) -> None:
    """Turned, or placed by ground control points: the COG and the item's box are where its pixels are."""
    size = 600
    turned = Affine.translation(WEST, NORTH) @ Affine.rotation(30) @ Affine.scale(PIXEL_M, -PIXEL_M)
    corners = [turned @ point for point in ((0, 0), (size, 0), (size, size), (0, size))]
    place: dict[str, Any] = {"transform": turned}
    if how == "points":
        pixels = ((0, 0), (size, 0), (size, size), (0, size))
        points = [
            GroundControlPoint(row=row, col=column, x=x, y=y)
            for (column, row), (x, y) in zip(pixels, corners, strict=True)
        ]
        place = {"transform": None, "gcps": points}
    path = write(tmp_path / "scene.tif", np.full((1, size, size), 7, "uint8"), **place)
    async with running(aws, at(cogs), local_paths=[str(tmp_path)]) as working:
        item = await working.make(str(path))
    longitudes, latitudes = transform("EPSG:32632", "EPSG:4326", *map(list, zip(*corners, strict=True)))
    box = [min(longitudes), min(latitudes), max(longitudes), max(latitudes)]
    assert item["bbox"] == pytest.approx(box, abs=2e-3)
    with rasterio.open(await fetched(cogs, item, tmp_path / "cog.tif")) as cog:
        assert cog.transform.is_rectilinear
        assert cog.dataset_mask().mean() < 200
        assert cog.read(1).max() == 7


async def test_drivers_that_are_not_there_stop_the_start(aws: Aws, cogs: Bucket) -> None:
    """GDAL is built with different ones; a file of one that is missing could never be read."""
    with pytest.raises(ConfigError, match=r"options\.drivers: this GDAL has no NoSuchDriver"):
        async with running(aws, at(cogs), drivers=["GTiff", "NoSuchDriver"]):
            pytest.fail("it started")


async def test_without_the_extra_the_start_says_what_to_install(aws: Aws, cogs: Bucket, tmp_path: Path) -> None:
    """GDAL comes with an extra; a line says which."""
    (tmp_path / "rasterio.py").write_text("raise ModuleNotFoundError('No module named rasterio')")
    with pytest.raises(ConfigError, match=r"pip install 'stacworker\[raster\]'"):
        async with running(aws, at(cogs), path=[str(tmp_path)]):
            pytest.fail("it started")


async def test_nan_is_no_number_in_an_item(aws: Aws, cogs: Bucket, tmp_path: Path) -> None:
    """A file of floats with NaN for no data has statistics of its numbers alone, and JSON without NaN."""
    half = write(tmp_path / "half.tif", rasters.floats(), nodata=np.nan)
    empty = write(tmp_path / "empty.tif", np.full((1, 64, 64), np.nan, "float32"), nodata=np.nan)
    async with running(aws, at(cogs), local_paths=[str(tmp_path)]) as working:
        items = [await working.make(str(path)) for path in (half, empty)]
    json.dumps(items, allow_nan=False)
    (band,) = items[0]["assets"]["data"]["raster:bands"]
    assert band["nodata"] == "nan"
    assert band["statistics"]["valid_percent"] == pytest.approx(50)
    assert 0 <= band["statistics"]["minimum"] < band["statistics"]["maximum"] <= 1
    assert items[1]["assets"]["data"]["raster:bands"] == [
        {"data_type": "float32", "scale": 1.0, "offset": 0.0, "sampling": "area", "nodata": "nan"}
    ]
    with rasterio.open(await fetched(cogs, items[0], tmp_path / "cog.tif")) as cog:
        assert cog.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"] == "3"


@pytest.mark.parametrize(
    "place",
    [
        {"crs": "EPSG:4326", "transform": Affine(0.01, 0, 179, 0, -0.01, -16)},
        {"crs": "EPSG:32760", "transform": Affine(1000, 0, 700_000, 0, -1000, 8_230_000)},
    ],
)
async def test_a_raster_over_the_antimeridian_has_two_parts(
    aws: Aws, cogs: Bucket, tmp_path: Path, place: dict[str, Any]
) -> None:
    """Its footprint is cut there, and its box goes from east to west, not around the world."""
    path = write(tmp_path / "fiji.tif", np.ones((1, 200, 200), "uint8"), **place)
    async with running(aws, at(cogs), local_paths=[str(tmp_path)]) as working:
        item = await working.make(str(path))
    assert item["geometry"]["type"] == "MultiPolygon"
    west, south, east, north = item["bbox"]
    assert 178 < west < 180
    assert -180 < east < -178
    assert -19 < south < north < -15
    prepared(item)


async def test_a_late_older_message_leaves_the_newer_cog(
    aws: Aws, bucket: MakeBucket, cogs: Bucket, tmp_path: Path
) -> None:
    """Two sources of one id: whatever comes last, the COG is what the newest item describes."""
    source = bucket()
    old = await source.put("old/scene.tif", write(tmp_path / "old.tif", rasters.bands16()).read_bytes())
    new = await source.put("new/scene.tif", write(tmp_path / "new.tif", rasters.bands16()[:2]).read_bytes())
    async with running(aws, at(cogs)) as working:
        newest = await working.make(new, version=Version(20))
        await working.make(old, version=Version(10))
        await fetched(cogs, newest, tmp_path / "cog.tif")
        again = await working.make(old, version=Version(30))
        await fetched(cogs, again, tmp_path / "again.tif")
        confirmed = await working.make(old, version=Version(50))
        await working.make(new, version=Version(40))
        await fetched(cogs, confirmed, tmp_path / "confirmed.tif")


async def test_the_same_source_is_worked_on_once(
    aws: Aws, bucket: MakeBucket, cogs: Bucket, tmp_path: Path, s3: Any
) -> None:
    """A second request costs no job and no upload, but follows what it says itself; a new source or option does."""
    source = bucket()
    path = write(tmp_path / "scene.tif", rasters.bands16(300))
    href = await source.put("scene.tif", path.read_bytes())
    async with running(aws, at(cogs)) as working:
        first = await working.make(href)
        before = await stored(cogs)
        assert await working.make(href) == first
        later = await working.make(href, datetime="2024-06-01T00:00:00Z")
        assert later["properties"]["datetime"] == "2024-06-01T00:00:00Z"
        assert (working.jobs, await stored(cogs)) == (1, before)
        await source.put("scene.tif", path.read_bytes())  # the same again: fetched, and found to be the same
        assert await working.make(href) == first
        assert working.jobs == 1
        await source.put("scene.tif", write(path, rasters.bands16(301)).read_bytes())
        assert (await working.make(href))["properties"]["proj:shape"] == [301, 301]
        assert working.jobs == 2
    async with running(aws, at(cogs), blocksize=256) as working:
        await working.make(href)
        assert working.jobs == 1
        s3.delete_object(Bucket=cogs.name, Key="cogs/things/scene.tif")
        await fetched(cogs, await working.make(href), tmp_path / "cog.tif")
        assert working.jobs == 2


async def test_requests_for_one_item_take_turns(aws: Aws, cogs: Bucket, tmp_path: Path) -> None:
    """Of ten at once the first does the work, and the others get what it made; other items do not wait."""
    one, other = (write(tmp_path / name, rasters.bands16(300)) for name in ("one.tif", "other.tif"))
    async with running(aws, at(cogs), local_paths=[str(tmp_path)], limits=Limits(processes=2)) as working:
        items = await asyncio.gather(*(working.make(str(one)) for _ in range(10)), working.make(str(other)))
        assert all(item == items[0] for item in items[:10])
        assert working.jobs == 2


async def test_a_cog_stays_as_it_is(aws: Aws, cogs: Bucket, tmp_path: Path) -> None:
    """A valid COG of the wanted kind is uploaded byte for byte; one of another kind, or by option, is made anew."""
    path = write(tmp_path / "scene.tif", rasters.bands16())
    async with running(aws, at(cogs), local_paths=[str(tmp_path)]) as working:
        cog = await fetched(cogs, await working.make(str(path)), tmp_path / "cog.tif")
        kept = await fetched(cogs, await working.make(str(cog)), tmp_path / "kept.tif")
        assert kept.read_bytes() == cog.read_bytes()
    for option in ({"keep_cogs": False, "overview_resampling": "nearest"}, {"profile": "lzw"}, {"blocksize": 256}):
        async with running(aws, at(cogs), local_paths=[str(tmp_path)], **option) as working:
            made = await fetched(cogs, await working.make(str(cog)), tmp_path / "made.tif")
            assert made.read_bytes() != cog.read_bytes()


async def test_an_item_that_is_sent_gets_its_cog(aws: Aws, cogs: Bucket, tmp_path: Path) -> None:
    """Its properties and other assets stay; the asset's href is replaced, here by a public URL."""
    path = write(tmp_path / "red.tif", rasters.bands16(64))
    sent = {
        "type": "Feature",
        "id": "mine",
        "collection": "things",
        "properties": {"datetime": WHEN, "gsd": 10},
        "assets": {"red": {"href": str(path), "title": "Red"}, "meta": {"href": "s3://b/meta.xml"}},
    }
    options = {"asset": "red", "public_url": "https://data.example/cogs", "local_paths": [str(tmp_path)]}
    async with running(aws, at(cogs), **options) as working:
        (item,) = await working.generator.generate(Request(sent, Version(1)))
    assert item["properties"] == {"datetime": WHEN, "gsd": 10}
    assert item["assets"]["meta"] == sent["assets"]["meta"]
    red = item["assets"]["red"]
    assert (red["href"], red["title"]) == ("https://data.example/cogs/things/mine.tif", "Red")
    assert (red["proj:epsg"], red["roles"]) == (32632, ["data"])
    assert "cogs/things/mine.tif" in await stored(cogs)


async def test_the_files_own_datetime_is_read(aws: Aws, cogs: Bucket, tmp_path: Path) -> None:
    """TIFFTAG_DATETIME in the way of TIFF; without it nothing is uploaded, and the reason says what to set."""
    tagged = write(tmp_path / "tagged.tif", rasters.bands16(64), tags={"TIFFTAG_DATETIME": "2021:03:04 05:06:07"})
    bare = write(tmp_path / "bare.tif", rasters.bands16(64))
    async with running(aws, at(cogs), local_paths=[str(tmp_path)]) as working:
        assert (await working.make(str(tagged), datetime=None))["properties"]["datetime"] == "2021-03-04T05:06:07Z"
        error = await refused(working, str(bare), datetime=None)
    assert isinstance(error, Permanent)
    assert "datetime_pattern" in error.reason
    assert "cogs/things/bare.tif" not in await stored(cogs)


async def test_large_cogs_go_in_parts(
    aws: Aws, cogs: Bucket, tmp_path: Path, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is larger than a part is uploaded in parts, with their checksums, and is whole afterwards."""
    monkeypatch.setattr(upload_module, "PART_BYTES", 5 << 20)
    path = write(tmp_path / "large.tif", rasters.bands16(2200))
    of_object = {"storage_class": "STANDARD_IA", "acl": "public-read"}
    async with running(aws, at(cogs), local_paths=[str(tmp_path)], **of_object) as working:
        await fetched(cogs, await working.make(str(path)), tmp_path / "cog.tif")
    head = s3.head_object(Bucket=cogs.name, Key="cogs/things/large.tif")
    assert head["ETag"].strip('"').endswith(f"-{-(-head['ContentLength'] // (5 << 20))}")
    assert (head["ContentType"].partition(";")[0], head["StorageClass"]) == ("image/tiff", "STANDARD_IA")
    grants = s3.get_object_acl(Bucket=cogs.name, Key="cogs/things/large.tif")["Grants"]
    assert "http://acs.amazonaws.com/groups/global/AllUsers" in {grant["Grantee"].get("URI") for grant in grants}


@pytest.mark.parametrize("pays", [True, False])
async def test_the_requester_pays_where_that_is_agreed(
    aws: Aws, bucket: MakeBucket, cogs: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, pays: bool
) -> None:
    """Each call to such a bucket says so, and no other does."""
    monkeypatch.setattr(upload_module, "PART_BYTES", 5 << 20)
    href = await bucket().put("scene.tif", write(tmp_path / "scene.tif", rasters.bands16(1100)).read_bytes())
    seen: dict[str, set[Any]] = {"source": set(), "destination": set()}

    class Watching(Failing):
        def fails(self, name: str, arguments: dict[str, Any]) -> bool:
            if name != "head_bucket":
                where = "destination" if arguments["Bucket"] == cogs.name else "source"
                seen[where].add(arguments.get("RequestPayer"))
            return False

    async with running(aws, at(cogs), s3=Watching(set()).around, requester_pays=pays) as working:
        await working.make(href)
        await working.make(href)
    assert seen == {"source": {None}, "destination": {"requester" if pays else None}}
    async with running(aws, at(cogs), s3=Watching(set()).around, source_requester_pays=True) as working:
        await working.make(href)
    assert "requester" in seen["source"]


@pytest.mark.parametrize("size", [300, 2200])
async def test_an_upload_that_fails_is_tried_again_and_gives_no_item(
    aws: Aws, cogs: Bucket, tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch, s3: Any
) -> None:
    """While the bucket answers otherwise it is this item's trouble; the next try succeeds."""
    monkeypatch.setattr(upload_module, "PART_BYTES", 5 << 20)
    path = write(tmp_path / "scene.tif", rasters.bands16(size))
    failing = Failing({"put_object", "upload_part"})
    async with running(aws, at(cogs), local_paths=[str(tmp_path)], s3=failing.around) as working:
        error = await refused(working, str(path))
        assert isinstance(error, Transient)
        assert error.error_class == "server_error"
        assert await stored(cogs) == {}
        assert "Uploads" not in s3.list_multipart_uploads(Bucket=cogs.name)
        failing.names.clear()
        await fetched(cogs, await working.make(str(path)), tmp_path / "cog.tif")


async def test_a_cog_without_its_record_is_made_again(aws: Aws, cogs: Bucket, tmp_path: Path) -> None:
    """Who dies between the two uploads has published nothing, and leaves nothing that harms the next try."""
    path = write(tmp_path / "scene.tif", rasters.bands16(300))

    class OnlyTheRecord(Failing):
        def fails(self, name: str, arguments: dict[str, Any]) -> bool:
            return super().fails(name, arguments) and arguments["Key"].endswith(".json")

    failing = OnlyTheRecord({"put_object"})
    async with running(aws, at(cogs), local_paths=[str(tmp_path)], s3=failing.around) as working:
        assert isinstance(await refused(working, str(path)), Transient)
        assert set(await stored(cogs)) == {"cogs/things/scene.tif"}
        failing.names.clear()
        await fetched(cogs, await working.make(str(path)), tmp_path / "cog.tif")
        assert working.jobs == 2


async def test_a_destination_that_is_gone_stops_the_work(aws: Aws, cogs: Bucket, tmp_path: Path, s3: Any) -> None:
    """Without its bucket no item has a place: polling pauses. At start it is a wrong setting."""
    path = write(tmp_path / "scene.tif", rasters.bands16(64))
    async with running(aws, at(cogs), local_paths=[str(tmp_path)]) as working:
        s3.delete_bucket(Bucket=cogs.name)
        error = await refused(working, str(path))
    assert isinstance(error, Unavailable)
    assert error.error_class == "bucket_missing"
    with pytest.raises(ConfigError, match=r"generators\.cogs\.options\.destination: there is no bucket"):
        async with running(aws, at(cogs)):
            pytest.fail("it started")


async def test_a_killed_child_leaves_nothing_and_costs_nobody_else(
    aws: Aws, cogs: Bucket, tmp_path: Path, temporary: Path
) -> None:
    """Killed while it writes: to be tried again, no item, no COG, no file; the next request is served."""
    path = write(tmp_path / "scene.tif", np.random.default_rng(1).random((1, 4000, 4000), "float32"))
    small = write(tmp_path / "small.tif", rasters.bands16(64))
    async with running(aws, at(cogs), local_paths=[str(tmp_path)]) as working:
        (child,) = working.generator._pool._children
        task = asyncio.create_task(working.make(str(path)))
        await until(lambda: files_in(temporary, "*.tif") != [])
        os.kill(child._process.pid, signal.SIGKILL)
        with pytest.raises(Transient) as error:
            await task
        assert error.value.error_class == "generator_crashed"
        assert files_in(temporary) == []
        assert await stored(cogs) == {}
        await fetched(cogs, await working.make(str(small)), tmp_path / "cog.tif")


async def test_a_cancelled_request_leaves_nothing(aws: Aws, cogs: Bucket, tmp_path: Path, temporary: Path) -> None:
    """The end of a drain cancels: no file stays, and the turn is given on."""
    path = write(tmp_path / "scene.tif", np.random.default_rng(1).random((1, 4000, 4000), "float32"))
    async with running(aws, at(cogs), local_paths=[str(tmp_path)]) as working:
        task = asyncio.create_task(working.make(str(path)))
        await until(lambda: files_in(temporary, "*.tif") != [])
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        await until(lambda: files_in(temporary) == [])
        assert working.generator._turns._places == {}


async def test_a_drain_starts_no_further_job(aws: Aws, cogs: Bucket, tmp_path: Path, temporary: Path) -> None:
    """What works goes on; what waits is given back at once."""
    path = write(tmp_path / "scene.tif", rasters.bands16(1500))
    async with running(aws, at(cogs), local_paths=[str(tmp_path)]) as working:
        first = asyncio.create_task(working.make(str(path)))
        await until(lambda: files_in(temporary, "*.tif") != [])
        second = asyncio.create_task(working.make(str(path)))
        await asyncio.sleep(0)
        working.generator.stop_starting()
        with pytest.raises(Unavailable, match="shutting down"):
            await second
        assert (await first)["id"] == "scene"


async def test_only_rasters_become_cogs(aws: Aws, cogs: Bucket, tmp_path: Path) -> None:
    """A text, a cut file, a file without a place on Earth and one that names other files are dead letters."""
    good = write(tmp_path / "good.tif", rasters.bands16(600))
    vrt = tmp_path / "names-another.tif"
    vrt.write_text(
        f'<VRTDataset rasterXSize="9" rasterYSize="9"><SRS>EPSG:4326</SRS><GeoTransform>0,1,0,0,0,-1</GeoTransform>'
        f'<VRTRasterBand dataType="UInt16" band="1"><SimpleSource><SourceFilename>{good}</SourceFilename>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    (tmp_path / "text.tif").write_text("a,b\n1,2\n")
    (tmp_path / "empty.tif").write_bytes(b"")
    (tmp_path / "cut.tif").write_bytes(good.read_bytes()[:-1_000_000])
    write(tmp_path / "cut-in-the-head.tif", rasters.bands16(600), compress="deflate")
    head = (tmp_path / "cut-in-the-head.tif").read_bytes()
    (tmp_path / "cut-in-the-head.tif").write_bytes(head[: len(head) // 2])
    write(tmp_path / "nowhere.tif", rasters.bands16(64), crs=None)
    wanted = {
        "names-another.tif": "raster_unreadable",
        "text.tif": "raster_unreadable",
        "empty.tif": "raster_unreadable",
        "cut.tif": "raster_unreadable",
        "cut-in-the-head.tif": "raster_unreadable",
        "nowhere.tif": "raster_unusable",
    }
    async with running(aws, at(cogs), local_paths=[str(tmp_path)]) as working:
        errors = {name: await refused(working, str(tmp_path / name)) for name in wanted}
        await working.make(str(good))  # what failed before does not matter
    assert {name: error.error_class for name, error in errors.items()} == wanted
    assert all(isinstance(error, Permanent) for error in errors.values())
    assert set(await stored(cogs)) == {"cogs/things/good.tif", "cogs/things/good.tif.json"}


async def test_sizes_are_bounded(aws: Aws, bucket: MakeBucket, cogs: Bucket, tmp_path: Path) -> None:
    """A source or raster that is too large is refused: by what is said of it, and by what comes."""
    path = write(tmp_path / "large.tif", rasters.bands16(600))
    href = await bucket().put("large.tif", path.read_bytes())
    bomb = write(tmp_path / "bomb.tif", np.zeros((1, 30_000, 30_000), "uint8"), compress="deflate")
    wide = write(tmp_path / "wide.tif", rasters.classes(2000))
    async with running(aws, at(cogs), local_paths=[str(tmp_path)], max_source_bytes=1_000_000) as working:
        for each in (href, str(path)):
            error = await refused(working, each)
            assert (type(error), error.error_class) == (Permanent, "source_too_large")
    async with running(aws, at(cogs), local_paths=[str(tmp_path)], max_output_bytes=800_000_000) as working:
        error = await refused(working, str(bomb))
        assert (type(error), error.error_class) == (Permanent, "raster_too_large")
    async with running(aws, at(cogs), local_paths=[str(tmp_path)], max_output_bytes=4_100_000) as working:
        error = await refused(working, str(wide))  # with its overviews the file on the way is larger
        assert (type(error), error.error_class) == (Permanent, "raster_too_large")


async def test_only_allowed_places_are_read(aws: Aws, bucket: MakeBucket, cogs: Bucket, tmp_path: Path) -> None:
    """Messages name no other files, hosts or buckets, however they write it."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    path = write(outside / "x.tif", rasters.bands16(64))
    (inside / "link.tif").symlink_to(path)
    (inside / "folder.tif").mkdir()
    os.mkfifo(inside / "pipe.tif")
    hrefs = {
        str(path): "source_not_allowed",
        f"file://{path}": "source_not_allowed",
        f"{inside}/../outside/x.tif": "source_not_allowed",
        f"{inside}/link.tif": "source_not_allowed",
        f"/vsicurl/{path}": "source_not_allowed",
        "x.tif": "source_not_allowed",
        "http://169.254.169.254/x.tif": "source_not_allowed",
        f"ftp://host/{path}": "source_not_allowed",
        f"{inside}/folder.tif": "source_missing",
        f"{inside}/pipe.tif": "source_missing",
        f"{inside}/none.tif": "source_missing",
        f"s3://{bucket().name}/none.tif": "object_missing",
        "s3://no-such-bucket-anywhere/none.tif": "bucket_missing",
        f"{at(cogs)}things/x.tif": "raster_usage",
    }
    async with running(aws, at(cogs), local_paths=[str(inside)]) as working:
        errors = {href: await refused(working, href) for href in hrefs}
    assert {href: error.error_class for href, error in errors.items()} == hrefs
    assert all(isinstance(error, Permanent) for error in errors.values())


class Failing:
    """A client some of whose calls fail as those to a broken S3 do."""

    def __init__(self, names: set[str]) -> None:
        self.names = names
        self._client: Any = None

    def around(self, client: Any) -> Failing:
        self._client = client
        return self

    def fails(self, name: str, arguments: dict[str, Any]) -> bool:
        return name in self.names

    def __getattr__(self, name: str) -> Any:
        async def call(**arguments: Any) -> Any:
            if self.fails(name, arguments):
                answer = {"Error": {"Code": "InternalError"}, "ResponseMetadata": {"HTTPStatusCode": 500}}
                raise botocore.exceptions.ClientError(answer, name)
            return await getattr(self._client, name)(**arguments)

        return call


def files_in(temporary: Path, pattern: str = "*") -> list[Path]:
    """Return the files of all jobs."""
    return list(temporary.glob(f"*/*/{pattern}"))


def prepared(item: dict[str, Any]) -> None:
    """Fail when the catalogue would not take an item."""
    prepare(Document("item", item, Version(1)))


async def until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)
