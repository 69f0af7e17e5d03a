"""The item of a COG: what was sent, and over it what the file tells. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from stacworker.errors import Permanent
from stacworker.generate.raster.asked import Asked

MEDIA_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
_STAC_VERSION = "1.0.0"
_FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
_SHA256 = "1220"  # multihash: https://multiformats.io/multihash/


def made_item(asked: Asked, told: Mapping[str, Any], *, href: str, size_bytes: int, sha256: str) -> dict[str, Any]:
    """Return the item; `told` is what `child/raster_description.py` returned for the COG.

    Geometry and bbox are the file's, unless a geometry was sent. What the file tells about its projection stands
    with the item's properties, or with its asset where the item has others too. Raises Permanent where nothing
    says what the datetime is.
    """
    base = asked.base
    others = {name: asset for name, asset in base.get("assets", {}).items() if name != asked.asset}
    own = _without(base.get("assets", {}).get(asked.asset, {}), "file:", "proj:", "raster:")
    asset = {
        "roles": ["data"],
        **own,
        **told["asset"],
        **(told["properties"] if others else {}),
        "href": href,
        "type": MEDIA_TYPE,
        "file:size": size_bytes,
        "file:checksum": _SHA256 + sha256,
    }
    sent = base["properties"] if isinstance(base.get("properties"), dict) else {}
    properties = dict(sent) if others else {**_without(sent, "proj:"), **told["properties"]}
    geometry = base.get("geometry")
    sent_bbox = base.get("bbox") if geometry else None
    return {
        "stac_version": _STAC_VERSION,
        "links": [],
        **base,
        "type": "Feature",
        "id": asked.id,
        "collection": asked.collection,
        "geometry": geometry or told["geometry"],
        "bbox": sent_bbox or told["bbox"],
        "properties": {**properties, **_times(asked, told)},
        "assets": {**others, asked.asset: asset},
        "stac_extensions": _extensions([*_listed(base), *told["stac_extensions"], _FILE]),
    }


def _times(asked: Asked, told: Mapping[str, Any]) -> Mapping[str, Any]:
    if asked.times:
        return asked.times
    if told["datetime"] is None:
        raise Permanent(
            f"{asked.origin}: nothing says what the item's datetime is: send a datetime, set the options "
            "datetime_pattern and datetime_format, or write TIFFTAG_DATETIME into the file",
            error_class="raster_usage",
        )
    return {"datetime": told["datetime"]}


def _without(fields: Mapping[str, Any], *prefixes: str) -> dict[str, Any]:
    """Leave out what was true of the source and need not be of the COG."""
    return {name: value for name, value in fields.items() if not name.startswith(prefixes)}


def _listed(base: Mapping[str, Any]) -> list[str]:
    listed = base.get("stac_extensions")
    return [each for each in listed if isinstance(each, str)] if isinstance(listed, list) else []


def _extensions(found: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(found))
