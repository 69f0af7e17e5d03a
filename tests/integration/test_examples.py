"""The pipelines in examples/pipelines: served together, from messages to a search; and their own tests."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio import Affine

from stacworker.demo.rasters import make_granules
from stacworker.testing.localstack import LocalStack
from tests.integration.aws import MakeBucket, MakeQueue
from tests.integration.worker import Catalogue, Worker

# What is tested is not pgstac: that loading works on each version, other tests show.
pytestmark = pytest.mark.newest_pgstac

EXAMPLES = Path(__file__).parents[2] / "examples" / "pipelines"
IDS = ("landcover", "naip", "scenes")


def raster(path: Path, value: int = 1) -> Path:
    """Write a small map near Munich, in UTM zone 32."""
    place = Affine(30, 0, 690_000, 0, -30, 5_340_000)
    with rasterio.open(
        path, "w", driver="GTiff", width=600, height=600, count=1, dtype="uint8", crs="EPSG:32632", transform=place
    ) as file:
        file.write(np.full((1, 600, 600), value, dtype="uint8"))
    return path


@pytest.mark.parametrize("example", IDS)
def test_its_own_tests_pass(example: str) -> None:
    """`stacworker pipelines test` runs them as a user would."""
    command = [sys.executable, "-m", "stacworker", "pipelines", "test", example, "--pipelines", str(EXAMPLES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


async def test_all_examples_run_from_message_to_search(
    worker: Callable[..., Worker],
    queue: MakeQueue,
    bucket: MakeBucket,
    catalogue: Catalogue,
    localstack: LocalStack,
    s3: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One process serves a stactools package, a plain function and a raster folder; their collections are made."""
    queues = {name: queue(name, max_receive_count=3) for name in IDS}
    incoming, copies = bucket("incoming"), bucket("copies")
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    for number in range(3):
        raster(scenes / f"scene{number}_2024030{number + 1}.tif")
    granules = tmp_path / "granules"
    granules.mkdir()
    tiles = list(make_granules(granules, 5))
    for name, value in {
        "NAIP_QUEUE_URL": queues["naip"].url,
        "NAIP_GRANULES": str(granules),
        "SCENES_QUEUE_URL": queues["scenes"].url,
        "SCENES_FOLDER": str(scenes),
        "LANDCOVER_QUEUE_URL": queues["landcover"].url,
        "LANDCOVER_BUCKET": copies.name,
    }.items():
        monkeypatch.setenv(name, value)
    running = worker(pipelines={"folder": str(EXAMPLES)}, fetch={"allowed_buckets": [incoming.name]})
    await running.start()

    incoming.notify(queues["landcover"].arn)
    await incoming.put("maps/bavaria_2023.tif", raster(tmp_path / "map.tif", 7).read_bytes())
    await queues["scenes"].send(json.dumps({"href": str(raster(tmp_path / "late_20240401.tif"))}))
    await queues["scenes"].send(json.dumps({"href": str(raster(tmp_path / "undated.tif"))}))
    await queues["naip"].send(
        *(
            json.dumps(
                {
                    "package_name": "stactools-naip",
                    "group_name": "naip",
                    "create_item_args": [tile.state, tile.year, str(tile.path)],
                    "collection_id": "naip",
                }
            )
            for tile in tiles
        )
    )

    await catalogue.until_count("naip", 5)
    await catalogue.until_count("scenes", 4)
    await catalogue.until_count("landcover", 1)
    assert {
        collection["id"] for collection in json.loads(await catalogue.value("SELECT pgstac.all_collections()"))
    } >= {*IDS}
    found = await catalogue.search(collections=["scenes"], datetime="2024-04-01T00:00:00Z/..")
    assert [item["id"] for item in found] == ["late_20240401"]
    (map_,) = await catalogue.search(
        collections=["landcover"], intersects={"type": "Point", "coordinates": [11.6, 48.1]}
    )
    href = map_["assets"]["data"]["href"]
    assert href == f"s3://{copies.name}/landcover/landcover/bavaria_2023.tif"
    data = s3.get_object(Bucket=copies.name, Key=href.removeprefix(f"s3://{copies.name}/"))["Body"].read()
    assert len(data) == map_["assets"]["data"]["file:size"]
    dead = queues["scenes"].dead_letters
    assert dead is not None
    (letter,) = await dead.drain(1)
    assert "does not end with a date" in letter.attributes["stacworker_reason"]
    await running.kill()  # a drain would wait for the receives that wait for 20 s
