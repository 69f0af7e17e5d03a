"""Rasters of all kinds, made on the spot, and a generator that makes COGs of them in LocalStack."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio import Affine

from stacworker.api import Request, Version
from stacworker.aws import Aws
from stacworker.generate.raster.generator import RasterGenerator
from stacworker.generate.recipe import Limits
from stacworker.metrics import Metrics

NORTH, WEST, PIXEL_M = 5_600_000, 500_000, 10
WHEN = "2024-05-01T00:00:00Z"


def write(path: Path, pixels: Any, *, colors: dict[int, Any] | None = None, tags: Any = None, **profile: Any) -> Path:
    """Write a GeoTIFF of bands, rows and columns; in UTM 32 unless the profile says other."""
    bands, height, width = pixels.shape
    place = {"crs": "EPSG:32632", "transform": Affine(PIXEL_M, 0, WEST, 0, -PIXEL_M, NORTH)}
    of_pixels = {"count": bands, "height": height, "width": width, "dtype": pixels.dtype}
    with rasterio.open(path, "w", driver="GTiff", **{**place, **of_pixels, **profile}) as file:
        file.write(pixels)
        if colors:
            file.write_colormap(1, colors)
        file.update_tags(**(tags or {}))
    return path


def bands16(size: int = 1100) -> Any:
    """Return four bands of uint16."""
    return np.random.default_rng(1).integers(1, 10_000, (4, size, size), "uint16")


def classes(size: int = 1100) -> Any:
    """Return one band with the classes 1, 5 and 200 beside each other."""
    return np.random.default_rng(1).choice(np.array([1, 5, 200], "uint8"), (1, size, size))


def floats(size: int = 700) -> Any:
    """Return one band of floats, half of it NaN."""
    pixels = np.random.default_rng(1).random((1, size, size), "float32")
    pixels[:, : size // 2] = np.nan
    return pixels


COLORS = {1: (255, 0, 0, 255), 5: (0, 255, 0, 255), 200: (0, 0, 255, 255)}


_FIRST = Version(1)


class Running:
    """A generator, and what it has done."""

    def __init__(self, generator: RasterGenerator, metrics: Metrics) -> None:
        self.generator = generator
        self._metrics = metrics

    async def make(self, href: str, *, version: Version = _FIRST, **body: Any) -> dict[str, Any]:
        """Return the one item of a request."""
        body = {"href": href, "datetime": WHEN, **body}
        (item,) = await self.generator.generate(Request(body, version, origin=href))
        return item

    @property
    def jobs(self) -> int:
        """How many jobs child processes were given."""
        samples = next(iter(self._metrics.generation_duration.collect())).samples
        return int(sum(sample.value for sample in samples if sample.name.endswith("_count")))


@asynccontextmanager
async def running(
    aws: Aws,
    destination: str,
    *,
    s3: Any = None,
    limits: Limits | None = None,
    path: Sequence[str] = (),
    **options: Any,
) -> AsyncIterator[Running]:
    """Run a generator; `s3` wraps its client."""
    metrics = Metrics()
    async with aws.client("s3") as client:
        generator = RasterGenerator(
            name="cogs",
            options={"destination": destination, "collection": "things", **options},
            limits=limits or Limits(processes=1, timeout_s=60),
            metrics=metrics,
            environ=dict(os.environ),
            s3=s3(client) if s3 else client,
            path=path,
        )
        async with generator:
            yield Running(generator, metrics)
