"""What the pipeline makes of messages. Run with `stacworker pipelines test scenes --pipelines examples/pipelines`."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio


@pytest.fixture
def scene(tmp_path, monkeypatch):
    """Make a small scene near Munich, in UTM zone 32."""
    path = tmp_path / "munich_20240305.tif"
    place = rasterio.Affine(30, 0, 690_000, 0, -30, 5_340_000)
    with rasterio.open(
        path, "w", driver="GTiff", width=32, height=32, count=1, dtype="uint8", crs="EPSG:32632", transform=place
    ) as raster:
        raster.write(np.ones((1, 32, 32), dtype="uint8"))
    monkeypatch.setenv("SCENES_FOLDER", str(tmp_path))
    return path


def test_a_scene_becomes_an_item(pipeline, scene):
    """Its place comes from the file, its date from the name, its platform from pipeline.yaml."""
    (item,) = pipeline.items({"href": str(scene)})
    assert (item["id"], item["collection"]) == ("munich_20240305", "scenes")
    assert item["properties"]["platform"] == "example-1"
    assert item["properties"]["datetime"] == "2024-03-05T00:00:00Z"
    west, south, east, north = item["bbox"]
    assert 11.5 < west < east < 11.6
    assert 48.1 < south < north < 48.3


def test_a_name_without_a_date_is_refused(pipeline):
    """The reason says what is missing."""
    with pytest.raises(pipeline.Refused, match="does not end with a date"):
        pipeline.items({"href": "/data/scenes/readme.tif"})


def test_a_scene_that_is_gone_is_refused_or_tried_again(pipeline, tmp_path):
    """A file that cannot be opened is no crash."""
    with pytest.raises(Exception, match="gone_20240305"):
        pipeline.items({"href": str(tmp_path / "gone_20240305.tif")})


def test_the_inventory_lists_the_folder(pipeline, scene):
    """One request a file."""
    assert pipeline.requests() == [f'{{"href": "{scene}"}}']


def test_the_collection_can_be_loaded(pipeline):
    """Its id is the one that the items name."""
    assert pipeline.collection()["id"] == "scenes"
