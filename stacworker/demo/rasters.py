"""Makes the demo's rasters: small GeoTIFFs that look like NAIP tiles, so that stactools-naip takes them.

NAIP names a tile `m_<quadrangle>_<quarter>_<UTM zone>_<resolution>_<date>.tif`; stactools-naip reads the
date and the item's id from that name and the footprint from the file.
https://github.com/stactools-packages/naip
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

_STATES = {"al": (31, 86), "az": (33, 110), "ca": (37, 119), "co": (38, 104), "ny": (42, 75), "wa": (47, 119)}
"""The south-east corner of a degree in each state: degrees north, degrees west."""

_FIRST_DAY = date(2019, 4, 1)
_DAYS = 850
_PIXELS = 64
_PIXEL_M = 60.0
_BANDS = 4
_QUARTERS = ("ne", "nw", "se", "sw")


@dataclass(frozen=True, slots=True)
class Granule:
    """One tile on disk, and what a request for its item needs."""

    path: Path
    state: str
    taken: date

    @property
    def year(self) -> str:
        """The season, as stactools-naip wants it."""
        return str(self.taken.year)

    @property
    def item_id(self) -> str:
        """The id that stactools-naip will give the item."""
        return f"{self.state}_{self.path.stem}"


def make_granules(folder: Path, count: int) -> Iterator[Granule]:
    """Write `count` tiles, spread over places and dates, and yield each when it is there."""
    import numpy as np  # noqa: PLC0415 - from the extra `demo`, whose absence is told before
    import rasterio  # noqa: PLC0415
    from rasterio.crs import CRS  # noqa: PLC0415
    from rasterio.warp import transform  # noqa: PLC0415

    random = np.random.default_rng(seed=1)
    for number in range(count):
        state, north, west, quad, quarter = _place(number)
        taken = _FIRST_DAY + timedelta(days=number * _DAYS // count)
        zone = math.floor((180 - west) / 6) + 1
        name = f"m_{int(north):02}{int(west):03}{quad:02}_{quarter}_{zone:02}_060_{taken:%Y%m%d}.tif"
        crs = CRS.from_epsg(26900 + zone)
        (easting,), (northing,) = transform(CRS.from_epsg(4326), crs, [-west], [north])
        with rasterio.open(
            folder / name,
            "w",
            driver="GTiff",
            width=_PIXELS,
            height=_PIXELS,
            count=_BANDS,
            dtype="uint8",
            crs=crs,
            transform=rasterio.Affine(_PIXEL_M, 0, easting, 0, -_PIXEL_M, northing),
        ) as tile:
            tile.write(random.integers(1, 255, (_BANDS, _PIXELS, _PIXELS), dtype="uint8"))
        yield Granule(folder / name, state, taken)


def _place(number: int) -> tuple[str, float, float, int, str]:
    """Return state, degrees north and west, quadrangle (1 to 64 in its degree) and quarter of a tile.

    Quadrangles are numbered by rows from the north-west; after 6 · 64 · 4 tiles the places come again.
    """
    state, (north, west) = list(_STATES.items())[number % len(_STATES)]
    cell = number // len(_STATES)
    quad = cell % 64 + 1
    quarter = _QUARTERS[cell // 64 % 4]
    row, column = divmod(quad - 1, 8)
    return state, north + (8 - row) / 8, west + (8 - column) / 8, quad, quarter
