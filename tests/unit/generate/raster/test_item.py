"""What was sent and what the file tells → the item."""

from __future__ import annotations

from typing import Any

import pytest

from stacworker.api import Request, Version
from stacworker.errors import Permanent
from stacworker.generate.raster.asked import asked
from stacworker.generate.raster.item import MEDIA_TYPE, made_item
from stacworker.generate.raster.options import RasterOptions

TOLD: dict[str, Any] = {
    "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]},
    "bbox": [0.0, 0.0, 1.0, 1.0],
    "stac_extensions": ["https://x/proj.json"],
    "properties": {"proj:epsg": 3857},
    "asset": {"raster:bands": [{"data_type": "uint8"}]},
    "datetime": None,
}


def made(body: dict[str, Any], told: dict[str, Any] = TOLD) -> dict[str, Any]:
    options = RasterOptions.of("cogs", {"destination": "s3://bucket/", "collection": "things"})
    return made_item(asked(Request(body, Version(1)), options), told, href="s3://c/x.tif", size_bytes=5, sha256="ab")


ASSET = {
    "roles": ["data"],
    "raster:bands": [{"data_type": "uint8"}],
    "href": "s3://c/x.tif",
    "type": MEDIA_TYPE,
    "file:size": 5,
    "file:checksum": "1220ab",
}


def test_a_file_alone_makes_a_whole_item() -> None:
    """Everything that the catalogue asks for is there, and the asset is the COG."""
    assert made({"href": "s3://b/x.tif", "datetime": "2024-05-01T00:00:00Z"}) == {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "x",
        "collection": "things",
        "geometry": TOLD["geometry"],
        "bbox": TOLD["bbox"],
        "properties": {"proj:epsg": 3857, "datetime": "2024-05-01T00:00:00Z"},
        "links": [],
        "assets": {"data": ASSET},
        "stac_extensions": ["https://x/proj.json", "https://stac-extensions.github.io/file/v2.1.0/schema.json"],
    }


def test_a_sent_item_keeps_what_the_file_does_not_tell() -> None:
    """Its properties, geometry and the asset's own fields stay; what was true of the source file goes."""
    footprint = {"type": "Point", "coordinates": [0.5, 0.5]}
    item = made(
        {
            "id": "x",
            "geometry": footprint,
            "properties": {"datetime": "2024-05-01T00:00:00Z", "gsd": 10, "proj:code": "EPSG:32632"},
            "assets": {"data": {"href": "s3://b/x.jp2", "title": "Red", "type": "image/jp2", "file:size": 1}},
        }
    )
    assert item["geometry"] == footprint
    assert item["properties"] == {"datetime": "2024-05-01T00:00:00Z", "gsd": 10, "proj:epsg": 3857}
    assert item["assets"] == {"data": {"title": "Red", **ASSET}}


def test_beside_other_assets_the_projection_is_the_assets_own() -> None:
    """An item's proj:* would be said of its other assets too."""
    other = {"href": "s3://b/thumb.png"}
    item = made(
        {
            "id": "x",
            "properties": {"datetime": "2024-05-01T00:00:00Z", "proj:epsg": 32632},
            "assets": {"data": {"href": "s3://b/x.tif"}, "thumb": other},
        }
    )
    assert item["properties"]["proj:epsg"] == 32632
    assert item["assets"] == {"thumb": other, "data": {**ASSET, "proj:epsg": 3857}}


def test_the_files_own_datetime_is_the_last_resort() -> None:
    """Where that is missing too, the request is told what to send."""
    told = {**TOLD, "datetime": "2020-01-01T00:00:00Z"}
    assert made({"href": "s3://b/x.tif"}, told)["properties"]["datetime"] == "2020-01-01T00:00:00Z"
    with pytest.raises(Permanent, match="datetime_pattern"):
        made({"href": "s3://b/x.tif"})
