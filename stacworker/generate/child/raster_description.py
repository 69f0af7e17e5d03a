"""What a raster tells about itself, as the parts of a STAC item."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from pystac.utils import str_to_datetime
from rasterio.features import bounds
from rasterio.warp import transform_geom
from rio_stac import create_stac_item

_WGS84 = "EPSG:4326"
_POINTS_AN_EDGE = 21  # as GDAL does
_DIGITS = 8  # of a degree: millimetres
_SAMPLE_PIXELS = 1024
_EAST, _ALL_AROUND, _POLE = 180.0, 360.0, 90.0
_NEAR = 1e-9


def described(dataset: Any) -> dict[str, Any]:
    """Return `geometry` and `bbox` (WGS84), `stac_extensions`, `properties` (`proj:*`), `asset` and `datetime`.

    `asset` has what belongs to the asset (`raster:bands`); `datetime` is the file's own, or None.
    """
    item = create_stac_item(
        dataset,
        id="raster",
        input_datetime=datetime.now(UTC),
        with_proj=True,
        with_raster=True,
        raster_max_size=_SAMPLE_PIXELS,
        geom_densify_pts=_POINTS_AN_EDGE,
        geom_precision=_DIGITS,
        asset_name="data",
        asset_href="data",
        asset_media_type="image/tiff",
    ).to_dict(include_self_link=False, transform_hrefs=False)
    geometry = _footprint(dataset) or item["geometry"]
    return {
        "geometry": geometry,
        "bbox": bbox_of(geometry),
        "stac_extensions": item["stac_extensions"],
        "properties": {key: value for key, value in item["properties"].items() if key.startswith("proj:")},
        "asset": {
            "raster:bands": [_honest(band, _sample_pixels(dataset)) for band in item["assets"]["data"]["raster:bands"]]
        },
        "datetime": _datetime(dataset),
    }


def cut(west: float, south: float, east: float, north: float) -> dict[str, Any]:
    """Return a box in degrees as a geometry within -180 to 180: in two parts where it crosses the antimeridian."""
    south, north = max(south, -_POLE), min(north, _POLE)
    if east - west >= _ALL_AROUND - _NEAR:
        return _polygon(-_EAST, south, _EAST, north)
    turns = (west + _EAST) // _ALL_AROUND
    west, east = west - turns * _ALL_AROUND, east - turns * _ALL_AROUND
    if east <= _EAST + _NEAR:
        return _polygon(west, south, min(east, _EAST), north)
    parts = (_polygon(west, south, _EAST, north), _polygon(-_EAST, south, east - _ALL_AROUND, north))
    return {"type": "MultiPolygon", "coordinates": [part["coordinates"] for part in parts]}


def bbox_of(geometry: dict[str, Any]) -> list[float]:
    """Return west, south, east and north; west is greater than east where the antimeridian lies between.

    https://datatracker.ietf.org/doc/html/rfc7946#section-5.2
    """
    whole = [float(value) for value in bounds(geometry)]
    if geometry["type"] != "MultiPolygon" or whole[0] > -_EAST + _NEAR or whole[2] < _EAST - _NEAR:
        return whole
    parts = [bounds({"type": "Polygon", "coordinates": rings}) for rings in geometry["coordinates"]]
    left = [part for part in parts if part[2] >= _EAST - _NEAR]
    right = [part for part in parts if part[0] <= -_EAST + _NEAR]
    if not left or not right or set(left) & set(right):
        return whole
    return [float(min(p[0] for p in left)), whole[1], float(max(p[2] for p in right)), whole[3]]


def _footprint(dataset: Any) -> dict[str, Any] | None:
    """Return the footprint of a raster in degrees that leaves the globe's usual edges, None for all others."""
    west, south, east, north = dataset.bounds
    inside = west >= -_EAST and east <= _EAST and south >= -_POLE and north <= _POLE
    if not dataset.crs.is_geographic or inside:
        return None
    box = cut(west, south, east, north)
    cut_box: dict[str, Any] = transform_geom(dataset.crs, _WGS84, box, precision=_DIGITS)
    return cut_box


def _polygon(west: float, south: float, east: float, north: float) -> dict[str, Any]:
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


def _sample_pixels(dataset: Any) -> int:
    """Return the number of pixels that rio-stac looks at."""
    width, height = int(dataset.width), int(dataset.height)
    longest = max(width, height)
    if longest <= _SAMPLE_PIXELS:
        return width * height
    return math.ceil(min(width, height) / longest * _SAMPLE_PIXELS) * _SAMPLE_PIXELS


def _honest(band: dict[str, Any], pixels: int) -> dict[str, Any]:
    """Mend the share of valid pixels, which rio-stac takes for one pixel where all are valid.

    Without a single valid pixel there are no statistics: they would be zeros.
    """
    valid = sum(band["histogram"]["buckets"])
    if not valid:
        return {key: value for key, value in band.items() if key not in ("statistics", "histogram")}
    share = min(100.0, 100.0 * valid / pixels)
    return {**band, "statistics": {**band["statistics"], "valid_percent": share}}


def _datetime(dataset: Any) -> str | None:
    text = dataset.get_tag_item("ACQUISITIONDATETIME", "IMAGERY") or dataset.get_tag_item("TIFFTAG_DATETIME")
    if not text:
        return None
    if len(text) >= len("2024:05:01") and text[4] == text[7] == ":":  # TIFF 6.0's own way
        text = text[:10].replace(":", "-") + text[10:]
    try:
        moment = str_to_datetime(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat().replace("+00:00", "Z")
