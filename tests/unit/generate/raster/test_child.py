"""What a COG is to be like, and what it tells: the child's part, on rasters made on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio import Affine

from stacworker.generate.child.raster_description import bbox_of, cut
from stacworker.generate.child.raster_shape import overview_levels, plan
from stacworker.generate.raster.options import RasterOptions


def planned(folder: Path, dtype: str = "uint8", count: int = 1, *, palette: bool = False, **options: Any) -> Any:
    path = folder / "source.tif"
    place = {"crs": "EPSG:32632", "transform": Affine(10, 0, 500_000, 0, -10, 5_600_000)}
    with rasterio.open(path, "w", driver="GTiff", width=64, height=64, count=count, dtype=dtype, **place) as made:
        made.write(np.ones((count, 64, 64), dtype))
        if palette:
            made.write_colormap(1, {1: (255, 0, 0, 255)})
    cog = RasterOptions.of("cogs", {"destination": "s3://bucket/", **options}).of_cog()
    with rasterio.open(path) as dataset:
        return plan(dataset, cog)


@pytest.mark.parametrize(
    ("raster", "options", "overview", "warp"),
    [
        ({}, {}, "average", "bilinear"),
        ({"palette": True}, {}, "mode", "nearest"),
        ({"palette": True}, {"kind": "continuous"}, "average", "bilinear"),
        ({"dtype": "float32"}, {"kind": "categorical"}, "mode", "nearest"),
        ({"palette": True}, {"overview_resampling": "nearest", "warp_resampling": "mode"}, "nearest", "mode"),
    ],
)
def test_categories_are_never_averaged(
    tmp_path: Path, raster: dict[str, Any], options: dict[str, Any], overview: str, warp: str
) -> None:
    """A colour table makes categories of pixels unless an option says what they are."""
    found = planned(tmp_path, **raster, crs="EPSG:3857", **options)
    assert (found.overview_resampling, found.warp["resampling"].name) == (overview, warp)


@pytest.mark.parametrize(
    ("dtype", "options", "predictor"),
    [
        ("uint16", {}, 2),
        ("float32", {}, 3),
        ("float32", {"profile": "zstd"}, 3),
        ("float32", {"profile": "raw"}, None),
        ("uint16", {"predictor": "none"}, None),
        ("complex64", {}, None),
    ],
)
def test_the_predictor_is_that_of_the_type(
    tmp_path: Path, dtype: str, options: dict[str, Any], predictor: int | None
) -> None:
    """Integers and floats have different ones, and not every compression has any."""
    assert planned(tmp_path, dtype, **options).profile.get("predictor") == predictor


def test_nothing_is_warped_that_is_where_it_belongs(tmp_path: Path) -> None:
    """Pixels stay as they are unless another CRS is asked for."""
    assert planned(tmp_path).warp is None
    assert planned(tmp_path, crs="EPSG:32632").warp is None


@pytest.mark.parametrize(("size", "levels"), [((512, 512), 0), ((513, 10), 1), ((10_980, 10_980), 5)])
def test_overviews_go_down_to_512_pixels(size: tuple[int, int], levels: int) -> None:
    """The longer side counts, or a validator would miss overviews of narrow rasters."""
    assert overview_levels(*size) == levels


@pytest.mark.parametrize(
    ("box", "bbox", "parts"),
    [
        ((170, -10, 175, 5), [170, -10, 175, 5], 1),
        ((179, -18, 181, -16), [179, -18, -179, -16], 2),
        ((-181, -18, -179, -16), [179, -18, -179, -16], 2),
        ((0, -90, 360, 90), [-180, -90, 180, 90], 1),
        ((190, 0, 200, 10), [-170, 0, -160, 10], 1),
        ((-180.25, -90.25, 179.75, 90.25), [-180, -90, 180, 90], 1),
    ],
)
def test_a_box_over_the_antimeridian_is_cut(box: tuple[float, ...], bbox: list[float], parts: int) -> None:
    """As RFC 7946 has it: two parts, and a bbox whose west is greater than its east."""
    geometry = cut(*box)
    assert bbox_of(geometry) == bbox
    assert (len(geometry["coordinates"]) if geometry["type"] == "MultiPolygon" else 1) == parts
