"""A raster file → a valid COG beside it, and what it tells about itself as the part of a STAC item.

The only module that needs rasterio, rio-cogeo and rio-stac. Nothing but local files of the drivers that settings
allow is opened: a VRT, which could name any file of this machine or any URL, is none of them.
"""

from __future__ import annotations

import os
import resource
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import rasterio
import rio_cogeo
from rasterio import RasterioIOError
from rasterio._err import CPLE_BaseError, CPLE_OutOfMemoryError
from rasterio.errors import RasterioError

from .raster_description import described
from .raster_shape import MaskedByAlpha, Plan, plan

_MAX_CAUSES = 20


class RasterError(Exception):
    """The request cannot be fulfilled, or (`transient`) not now."""

    def __init__(self, error_class: str, reason: str, *, transient: bool = False) -> None:
        super().__init__(reason)
        self.error_class = error_class
        self.transient = transient


class Rasters:
    """Makes COGs; called with `{"source": path, "cog": path}`, returns one description.

    `cog` are the fields of `CogOptions`, `drivers` the names of GDAL's drivers that may open a source; no file
    becomes larger than `max_output_bytes`.
    """

    def __init__(
        self, *, cog: dict[str, Any], drivers: list[str], max_output_bytes: int, threads: int, gdal_cache_mb: int
    ) -> None:
        self._cog = cog
        self._max_bytes = max_output_bytes
        self._config = {
            "CPL_VSIL_CURL_ALLOWED_FILENAME": "none",
            "GDAL_CACHEMAX": gdal_cache_mb << 20,  # rasterio takes bytes, unlike GDAL itself
            "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
            "GDAL_NUM_THREADS": threads,
            "GDAL_PAM_ENABLED": False,
            "GDAL_TIFF_INTERNAL_MASK": True,
            "GDAL_TIFF_OVR_BLOCKSIZE": cog["blocksize"],
        }
        with rasterio.Env(**self._config) as env:
            there = env.drivers()
        if missing := [name for name in drivers if name not in there]:
            raise LookupError(f"options.drivers: this GDAL has no {', '.join(missing)}")
        if cog["crs"] is not None:
            rasterio.crs.CRS.from_user_input(cog["crs"])
        # Nothing else runs in this process. rio-cogeo opens by path, and then all drivers would have a look;
        rasterio.open = partial(_opened, rasterio.open, drivers)
        # and GDAL takes a last band of alpha for a mask only where it is the second or fourth.
        rio_cogeo.cogeo.WarpedVRT = MaskedByAlpha
        self.about = {"gdal": rasterio.__gdal_version__, "rio-cogeo": rio_cogeo.__version__}
        self._exceeded: list[bool] = []
        _bound_files(max_output_bytes, self._exceeded)

    def __call__(self, request: dict[str, Any]) -> dict[str, Any]:
        """Make the file `cog` from the file `source`; return what an item says about it.

        Raises RasterError: `raster_unreadable`, `raster_unusable`, `raster_too_large`, `raster_invalid`; transient:
        `raster_no_space`.
        """
        source, cog = Path(request["source"]), Path(request["cog"])
        with warnings.catch_warnings(), rasterio.Env(**self._config), _told(cog.parent, self._exceeded):
            warnings.simplefilter("ignore")
            with rasterio.open(source) as dataset:
                _check(dataset)
                wanted = plan(dataset, self._cog)
                self._check_size(wanted, dataset)
                kept = self._is_kept(source, dataset, wanted)
                if not kept:
                    wanted.write(dataset, cog)
            if kept:
                source.rename(cog)
            valid, errors, notes = rio_cogeo.cog_validate(cog, strict=True, quiet=True)
            if not valid:
                raise RasterError("raster_invalid", f"the file made is no valid COG: {'; '.join([*errors, *notes])}")
            with rasterio.open(cog) as dataset:
                return {**described(dataset), "kept": kept}

    def _is_kept(self, source: Path, dataset: Any, wanted: Plan) -> bool:
        """Tell whether the source can be uploaded as it is."""
        if not self._cog["keep_cogs"] or not wanted.is_like(dataset):
            return False
        return bool(rio_cogeo.cog_validate(source, strict=True, quiet=True)[0])

    def _check_size(self, wanted: Plan, dataset: Any) -> None:
        most = max(wanted.raw_bytes, dataset.width * dataset.height)
        if most > self._max_bytes:
            raise RasterError(
                "raster_too_large",
                f"the raster has {most:,} bytes before compression, at most {self._max_bytes:,} are allowed "
                "(options.max_output_bytes)",
            )


def _opened(opens: Any, drivers: list[str], path: Any, mode: str = "r", driver: Any = None, **more: Any) -> Any:
    """Do what `rasterio.open` does, but read only what is of one of the drivers (it takes no list)."""
    if mode != "r" or driver is not None:
        return opens(path, mode, driver=driver, **more)
    errors = []
    for name in drivers:
        try:
            return opens(path, mode, driver=name, **more)
        except RasterioIOError as error:
            errors.append(error)
    # Each of the others says only that the file is none of its own.
    raise next((error for error in errors if "not recognized" not in str(error)), errors[0])


def _check(dataset: Any) -> None:
    if not dataset.count:
        names = ", ".join(str(name).rpartition(":")[2] for name in dataset.subdatasets[:10])
        raise RasterError("raster_unusable", f"the file holds no raster of its own (but perhaps: {names or 'nothing'})")
    if len(set(dataset.dtypes)) > 1:
        raise RasterError("raster_unusable", f"its bands have different types: {', '.join(dataset.dtypes)}")
    crs = dataset.crs or dataset.gcps[1]
    if crs is None or not (crs.is_geographic or crs.is_projected):
        raise RasterError("raster_unusable", "the file does not say where on Earth it is: it has no CRS")
    if dataset.transform.is_identity and not dataset.gcps[0]:
        raise RasterError("raster_unusable", "the file does not say where on Earth it is: it has no geotransform")


def _bound_files(max_bytes: int, exceeded: list[bool]) -> None:
    """Let no file of ours grow larger, and have it noted when one would have."""

    def note(_number: int, _frame: FrameType | None) -> None:
        exceeded.append(True)

    signal.signal(signal.SIGXFSZ, note)  # else it would be told only on standard error
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    most = max_bytes if hard == resource.RLIM_INFINITY else min(max_bytes, hard)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))


@contextmanager
def _told(folder: Path, exceeded: list[bool]) -> Iterator[None]:
    """Turn GDAL's errors into ours: about the file, or about what this machine has."""
    exceeded.clear()
    try:
        yield
    except RasterError:
        raise
    except (RasterioError, CPLE_BaseError, OSError, ValueError) as error:
        causes = _causes(error)
        if any(isinstance(cause, CPLE_OutOfMemoryError | MemoryError) for cause in causes):
            raise MemoryError(str(error)) from error
        if exceeded:
            text = "its COG, or a file on the way to it, would be larger than options.max_output_bytes"
            raise RasterError("raster_too_large", text) from error
        text = str(causes[-1]).replace(str(folder) + os.sep, "")
        if any("write" in str(cause).lower() for cause in causes):
            text = f"a temporary file cannot be written (no space in TMPDIR?): {text}"
            raise RasterError("raster_no_space", text, transient=True) from error
        raise RasterError("raster_unreadable", f"no COG can be made of the file: {text}") from error


def _causes(error: BaseException) -> list[BaseException]:
    """Return an error and what it came from, the first cause last: rasterio's own texts refer to it."""
    found = [error]
    while (cause := found[-1].__cause__) is not None and len(found) < _MAX_CAUSES:
        found.append(cause)
    return found
