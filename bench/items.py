"""Items and collections for benchmarks: small ones like NAIP's, large ones like Sentinel-2's."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

Kind = Literal["small", "large"]

_FIRST = dt.datetime(2023, 3, 1, 0, 0, 1, tzinfo=dt.UTC)
_BANDS = {
    "coastal": ("B01", 60, 0.443),
    "blue": ("B02", 10, 0.49),
    "green": ("B03", 10, 0.56),
    "red": ("B04", 10, 0.665),
    "rededge1": ("B05", 20, 0.704),
    "rededge2": ("B06", 20, 0.74),
    "rededge3": ("B07", 20, 0.783),
    "nir": ("B08", 10, 0.842),
    "nir08": ("B8A", 20, 0.865),
    "nir09": ("B09", 60, 0.945),
    "swir16": ("B11", 20, 1.61),
    "swir22": ("B12", 20, 2.19),
    "aot": ("AOT", 20, 0.0),
    "wvp": ("WVP", 20, 0.0),
    "scl": ("SCL", 20, 0.0),
}
_COG = "image/tiff; application=geotiff; profile=cloud-optimized"


def collection(kind: Kind, collection_id: str) -> dict[str, Any]:
    """Return a collection whose item_assets hold what its items' assets share."""
    item_assets = (
        {"image": _small_asset(), "thumbnail": {"type": "image/jpeg", "roles": ["thumbnail"], "title": "Thumbnail"}}
        if kind == "small"
        else {name: _band_asset(name) for name in _BANDS}
    )
    return {
        "type": "Collection",
        "id": collection_id,
        "stac_version": "1.0.0",
        "description": f"{kind} items",
        "license": "other",
        "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
        "links": [],
        "item_assets": item_assets,
    }


def item(kind: Kind, collection_id: str, number: int, of: int) -> dict[str, Any]:
    """Return one of `of` items, whose datetimes advance evenly over two months."""
    when = _FIRST + dt.timedelta(days=61) * (number / of)
    name = f"{kind}_{when:%Y%m%dT%H%M%S}_{number:07}"
    west, south = -120 + (number % 500) / 10, 30 + (number // 500 % 150) / 10
    east, north = west + 0.0625, south + 0.0625
    ring = [[east, south], [east, north], [west, north], [west, south], [east, south]]
    links = [
        {
            "rel": rel,
            "type": "application/json",
            "href": f"https://stac.example.com/api/collections/{collection_id}{end}",
        }
        for rel, end in (("collection", ""), ("parent", ""), ("self", f"/items/{name}"))
    ]
    shape = _small(name, number) if kind == "small" else _large(name, number)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [
            "https://stac-extensions.github.io/eo/v1.0.0/schema.json",
            "https://stac-extensions.github.io/projection/v1.0.0/schema.json",
        ],
        "id": name,
        "collection": collection_id,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [west, south, east, north],
        "links": links,
        "properties": {"datetime": when.isoformat().replace("+00:00", "Z"), **shape["properties"]},
        "assets": shape["assets"],
    }


def _small_asset() -> dict[str, Any]:
    bands = [{"name": name.title(), "common_name": name} for name in ("red", "green", "blue", "nir")]
    return {"type": _COG, "roles": ["data"], "title": "RGBIR COG tile", "eo:bands": bands}


def _small(name: str, number: int) -> dict[str, Any]:
    href = f"https://data.example.com/naip/v002/ca/2023/ca_060cm_2023/{number % 1000:05}/{name}"
    return {
        "properties": {
            "gsd": 0.6,
            "naip:state": "ca",
            "naip:year": "2023",
            "proj:epsg": 26910,
            "proj:shape": [12240, 10630],
            "proj:bbox": [603183.5, 3422914.8, 609561.5, 3430258.8],
            "proj:transform": [0.6, 0.0, 603183.5 + number, 0.0, -0.6, 3430258.8, 0.0, 0.0, 1.0],
        },
        "assets": {
            "image": {"href": f"{href}.tif", **_small_asset()},
            "thumbnail": {
                "href": f"{href}.200.jpg",
                "type": "image/jpeg",
                "roles": ["thumbnail"],
                "title": "Thumbnail",
            },
        },
    }


def _band_asset(name: str) -> dict[str, Any]:
    band, gsd, wavelength = _BANDS[name]
    return {
        "type": _COG,
        "roles": ["data", "reflectance"],
        "title": f"{band} - {gsd}m",
        "gsd": gsd,
        "eo:bands": [{"name": name, "common_name": name, "center_wavelength": wavelength, "full_width_half_max": 0.03}],
        "raster:bands": [{"nodata": 0, "data_type": "uint16", "spatial_resolution": gsd, "scale": 0.0001}],
    }


def _large(name: str, number: int) -> dict[str, Any]:
    assets = {}
    for band, (label, gsd, _) in _BANDS.items():
        assets[band] = {
            "href": f"https://sentinel-cogs.example.com/sentinel-s2-l2a-cogs/10/S/FJ/2023/3/{name}/{label}.tif",
            **_band_asset(band),
            "proj:shape": [109800 // gsd, 109800 // gsd],
            "proj:transform": [gsd, 0, 600000 + number, 0, -gsd, 4200000],
            "file:checksum": f"1220{number * 7919:056x}{gsd:08x}",
            "file:size": 100_000_000 + number,
        }
    return {
        "properties": {
            "created": "2023-03-02T05:20:11.123Z",
            "updated": "2023-03-02T05:20:11.123Z",
            "platform": "sentinel-2a",
            "constellation": "sentinel-2",
            "instruments": ["msi"],
            "eo:cloud_cover": number % 100 / 1.7,
            "proj:epsg": 32610,
            "mgrs:utm_zone": 10,
            "mgrs:latitude_band": "S",
            "mgrs:grid_square": "FJ",
            "grid:code": "MGRS-10SFJ",
            "view:sun_azimuth": 152.1 + number % 10,
            "view:sun_elevation": 40.2 + number % 10,
            "s2:degraded_msi_data_percentage": 0.0126,
            "s2:nodata_pixel_percentage": 12.8 + number % 50,
            "s2:vegetation_percentage": 20.5 + number % 30,
            "s2:not_vegetated_percentage": 30.1,
            "s2:water_percentage": 4.2,
            "s2:product_uri": f"S2A_MSIL2A_{name}.SAFE",
            "s2:generation_time": "2023-03-02T03:10:11.000000Z",
            "s2:processing_baseline": "05.09",
        },
        "assets": assets,
    }
