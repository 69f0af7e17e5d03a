"""One item for each scene: a GeoTIFF whose name ends with its date, such as scene_20240305.tif."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import pystac
from rio_stac import create_stac_item


def create_items(request: dict[str, Any], platform: str) -> pystac.Item:
    """Return the item of the scene that `request["href"]` names."""
    href = request["href"]
    name = PurePosixPath(href).stem
    date = re.search(r"(\d{8})$", name)
    if date is None:
        raise ValueError(f"{name} does not end with a date such as 20240305")
    taken = datetime.strptime(date[1], "%Y%m%d").replace(tzinfo=UTC)
    return create_stac_item(
        href,
        id=name,
        input_datetime=taken,
        properties={"platform": platform},
        asset_name="data",
        asset_media_type="auto",
        with_proj=True,
    )
