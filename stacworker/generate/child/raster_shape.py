"""What a COG of a raster is to be like, and the writing of it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.transform import from_gcps
from rasterio.vrt import WarpedVRT
from rio_cogeo import cog_profiles, cog_translate

_SMALLEST_OVERVIEW = 512
"""What validators take for small enough to need no overview."""
_PREDICTED = frozenset({"DEFLATE", "LZW", "ZSTD"})


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done with one raster: shape and CRS of the COG, and how pixels become others."""

    profile: dict[str, Any]
    width: int
    height: int
    raw_bytes: int
    levels: int
    categorical: bool
    overview_resampling: str
    warp: dict[str, Any] | None
    """Options of the WarpedVRT that brings the raster to where it belongs; None when it is there."""
    masked: bool
    """Whether the COG gets a mask, because pixels without a value have no other sign."""
    nodata: float | None

    def write(self, dataset: Any, cog: Path) -> None:
        """Write the COG."""
        with ExitStack() as stack:
            source = stack.enter_context(MaskedByAlpha(dataset, **self.warp)) if self.warp is not None else dataset
            cog_translate(
                source,
                str(cog),
                self.profile,
                nodata=self.nodata,
                add_mask=self.masked,
                overview_level=self.levels,
                overview_resampling=self.overview_resampling,
                resampling="nearest",
                in_memory=False,
                quiet=True,
                forward_band_tags=True,
            )

    def is_like(self, dataset: Any) -> bool:
        """Tell whether a file is like this already, apart from the layout of a COG."""
        if dataset.driver != "GTiff" or self.warp is not None or dataset.gcps[0]:
            return False
        blocks = {(self.profile["blockxsize"], self.profile["blockysize"])}
        compression = dataset.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION", "")
        wanted = self.profile.get("compress", "").upper()
        if wanted == "JPEG" and compression.endswith("JPEG"):  # "YCbCr JPEG"
            compression = wanted
        if set(dataset.block_shapes) != blocks or compression.upper() != wanted:
            return False
        if self.nodata is not None and not _equal(self.nodata, dataset.nodata):
            return False
        if dataset.overviews(1) and self.categorical:
            # Overviews of categories that somebody averaged show classes that are not there.
            return str(dataset.tags().get("OVERVIEW_RESAMPLING", "")).lower() in ("mode", "nearest")
        return True


def plan(dataset: Any, cog: dict[str, Any]) -> Plan:
    """Return what is to be done with an open raster; `cog` are the fields of `CogOptions`."""
    categorical = cog["kind"] == "categorical" or (cog["kind"] == "auto" and is_categorical(dataset))
    nodata = None if cog["nodata"] is None else float(cog["nodata"])
    warp = _warp(dataset, cog, categorical=categorical, nodata=nodata)
    width, height = dataset.width, dataset.height
    if warp is not None:
        with WarpedVRT(dataset, **warp) as there:
            width, height = there.width, there.height
    sized = np.dtype(dataset.dtypes[0]).itemsize if dataset.dtypes[0] != "complex_int16" else 4
    overview = cog["overview_resampling"] or ("mode" if categorical else "average")
    return Plan(
        profile=_profile(dataset, cog),
        width=width,
        height=height,
        raw_bytes=width * height * dataset.count * sized,
        levels=overview_levels(width, height) if cog["overviews"] == "auto" else cog["overviews"],
        categorical=categorical,
        overview_resampling=overview,
        warp=warp,
        masked=bool(warp and warp.get("add_alpha")),
        nodata=nodata,
    )


def is_categorical(dataset: Any) -> bool:
    """Tell whether pixels are numbers of categories: the file has a colour table."""
    if dataset.count != 1:
        return False
    if dataset.colorinterp[0] is ColorInterp.palette:
        return True
    try:
        return bool(dataset.colormap(1))
    except ValueError:
        return False


def overview_levels(width: int, height: int) -> int:
    """Return how often a raster is halved until it needs no overview."""
    levels = 0
    while max(width, height) / 2**levels > _SMALLEST_OVERVIEW:
        levels += 1
    return levels


def _warp(dataset: Any, cog: dict[str, Any], *, categorical: bool, nodata: float | None) -> dict[str, Any] | None:
    """Return how the raster is warped, or None: it is north-up, and in the CRS that is wanted."""
    gcps, crs_of_gcps = dataset.gcps
    crs = dataset.crs or crs_of_gcps
    target = CRS.from_user_input(cog["crs"]) if cog["crs"] else crs
    if target == crs and not gcps and dataset.transform.is_rectilinear:
        return None
    resampling = cog["warp_resampling"] or ("nearest" if categorical else "bilinear")
    options: dict[str, Any] = {"crs": target, "resampling": Resampling[resampling]}
    if gcps:
        options |= {"src_crs": crs_of_gcps, "src_transform": from_gcps(gcps)}
    known = nodata if nodata is not None else dataset.nodata
    if known is None and ColorInterp.alpha not in dataset.colorinterp and all_valid(dataset):
        known = unused_value(dataset, categorical=categorical)
    if known is not None:
        return options | {"nodata": known, "src_nodata": known}
    # The corners that a turned raster leaves empty would be 0, which may well be a value.
    return options if ColorInterp.alpha in dataset.colorinterp else options | {"add_alpha": True}


class MaskedByAlpha(WarpedVRT):  # type: ignore[misc]  # rasterio has no types here
    """A WarpedVRT whose mask is its band of alpha, however many bands come before it."""

    def dataset_mask(self, **how: Any) -> Any:
        """Return 255 where there is a pixel and 0 elsewhere; takes what rasterio's own method takes."""
        if ColorInterp.alpha not in self.colorinterp:
            return super().dataset_mask(**how)
        alpha = self.read(self.colorinterp.index(ColorInterp.alpha) + 1, **how)
        return np.where(alpha > 0, 255, 0).astype("uint8")


def all_valid(dataset: Any) -> bool:
    """Tell whether the raster has no mask."""
    return all(flags == [MaskFlags.all_valid] for flags in dataset.mask_flag_enums)


def unused_value(dataset: Any, *, categorical: bool) -> float | None:
    """Return a value for no data that no pixel has, None where there is none: all pixels are looked at.

    Better than a mask: at its edge GDAL lets overviews show what is under it. For what is averaged it has to be
    the least or the greatest that there can be, or averages could hit it.
    """
    kind = np.dtype(dataset.dtypes[0]) if dataset.dtypes[0] != "complex_int16" else np.dtype("complex64")
    if kind.kind == "f":
        return float("nan")
    if kind.kind not in "iu":
        return None
    least, most = int(np.iinfo(kind).min), int(np.iinfo(kind).max)
    used: set[int] = set()
    few = categorical and kind.itemsize == 1
    for band in dataset.indexes:
        for _, window in dataset.block_windows(band):
            pixels = dataset.read(band, window=window)
            used.update(np.unique(pixels).tolist() if few else (int(pixels.min()), int(pixels.max())))
    wanted = [0] if least == 0 else [least]
    wanted += [most, *range(most - 1, least, -1)] if few else [most]
    return next((float(value) for value in wanted if value not in used), None)


def _profile(dataset: Any, cog: dict[str, Any]) -> dict[str, Any]:
    profile = dict(cog_profiles[cog["profile"]])
    profile.update(blockxsize=cog["blocksize"], blockysize=cog["blocksize"], bigtiff="IF_SAFER")
    kind = np.dtype(dataset.dtypes[0]).kind if dataset.dtypes[0] != "complex_int16" else "c"
    if cog["predictor"] == "auto" and profile.get("compress", "").upper() in _PREDICTED and kind in "iuf":
        profile["predictor"] = 3 if kind == "f" else 2
    return profile


def _equal(wanted: float, there: float | None) -> bool:
    return there is not None and (wanted == there or (wanted != wanted and there != there))  # noqa: PLR0124 - NaN
