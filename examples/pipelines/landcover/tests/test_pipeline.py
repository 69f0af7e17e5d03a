"""What the pipeline makes of maps. Run with `stacworker pipelines test landcover --pipelines examples/pipelines`."""

from __future__ import annotations

import io

import numpy as np
import pytest
import rasterio

CLASSES = (1, 4, 9)


@pytest.fixture
def arrived(s3_server):
    """Put a map of three classes in the bucket where maps arrive; return its message."""
    random = np.random.default_rng(seed=1)
    classes = random.choice(np.array(CLASSES, dtype="uint8"), size=(1, 1024, 1024))
    data = io.BytesIO()
    place = rasterio.Affine(30, 0, 690_000, 0, -30, 5_340_000)
    with rasterio.open(
        data, "w", driver="GTiff", width=1024, height=1024, count=1, dtype="uint8", crs="EPSG:32632", transform=place
    ) as raster:
        raster.write(classes)
    s3_server.put("incoming", "maps/bavaria_2023.tif", data.getvalue())
    s3_server.make_bucket("unset")
    return "incoming", "maps/bavaria_2023.tif"


def test_a_map_becomes_a_cog_and_its_item(pipeline, s3_server, arrived):
    """The item points at the copy, whose overviews hold the classes of the map and nothing between them."""
    (item,) = pipeline.handle(pipeline.messages.s3_event(*arrived))
    assert (item["id"], item["collection"]) == ("bavaria_2023", "landcover")
    assert item["properties"]["datetime"] == "2023-01-01T00:00:00Z"
    assert -180 <= item["bbox"][0] < item["bbox"][2] <= 180
    data = s3_server.read(item["assets"]["data"]["href"])
    with rasterio.open(io.BytesIO(data), OVERVIEW_LEVEL=0) as overview:
        assert (overview.width, overview.profile["tiled"]) == (512, True)
        assert set(np.unique(overview.read())) <= set(CLASSES)


def test_what_is_no_raster_is_refused(pipeline, s3_server):
    """Nothing is uploaded for it."""
    s3_server.make_bucket("unset")
    s3_server.put("incoming", "maps/readme_2023.tif", b"this is no raster")
    with pytest.raises(pipeline.Refused, match="readme_2023"):
        pipeline.handle(pipeline.messages.s3_event("incoming", "maps/readme_2023.tif"))
    assert s3_server.keys("unset") == []
