"""The options of a generator of type `raster`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import AfterValidator, BaseModel, ByteSize, ConfigDict, Field, ValidationError, model_validator

from stacworker.errors import ConfigError

_MULTIPLE = 16
_FORMAT = 1
"""Raise it when the same options begin to make other files, or other descriptions of them."""


def _check_destination(value: str) -> str:
    if not re.fullmatch(r"s3://[A-Za-z0-9._-]{1,255}(/.*)?", value):
        raise ValueError("give s3://bucket/prefix/")
    return value


def _check_public_url(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s/?#@]+[^\s?#]*", value):
        raise ValueError(
            "give the URL under which the destination's prefix is served, such as https://data.example/cogs"
        )
    return value.rstrip("/") + "/"


def _check_pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error:
        raise ValueError("this is no regular expression") from None
    return value


def _check_folder(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("give a folder's whole path, such as /data/granules")
    return value


def _check_block(value: int) -> int:
    if value % _MULTIPLE:
        raise ValueError("give a multiple of 16")
    return value


Pattern = Annotated[str, AfterValidator(_check_pattern)]
Bytes = Annotated[ByteSize, Field(gt=0)]
Resampling = Literal["nearest", "bilinear", "cubic", "cubic_spline", "lanczos", "average", "mode", "rms"]


class CogOptions(BaseModel):
    """What a COG is to be like. A change of one of these makes the COG of a known source again."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    profile: Literal[
        "deflate", "zstd", "lzw", "lzma", "packbits", "raw", "jpeg", "webp", "lerc", "lerc_deflate", "lerc_zstd"
    ] = "deflate"
    """Compression: a profile of rio-cogeo."""
    predictor: Literal["auto", "none"] = "auto"
    """auto: 2 for integers and 3 for floats, with deflate, zstd and lzw."""
    blocksize: Annotated[int, Field(ge=128, le=4096), AfterValidator(_check_block)] = 512
    """Pixels along the side of a tile."""
    overviews: Literal["auto"] | Annotated[int, Field(ge=1, le=20)] = "auto"
    """Levels of overviews; auto: until one is no larger than 512 pixels."""
    kind: Literal["auto", "continuous", "categorical"] = "auto"
    """What pixels are: categories are never averaged. auto: categories where the file has a colour table."""
    overview_resampling: Resampling | None = None
    """Instead of mode for categories and average for all else."""
    warp_resampling: Resampling | None = None
    """Instead of nearest for categories and bilinear for all else."""
    crs: str | None = None
    """Reproject to this, such as EPSG:3857; default: what the file has."""
    nodata: float | Literal["nan"] | None = None
    """The pixel value that means nothing, where files do not say it."""
    keep_cogs: bool = True
    """A file that is a valid COG of this kind already is uploaded as it is."""

    @property
    def digest(self) -> str:
        """Tell options that make different COGs apart."""
        return sha256(orjson.dumps([_FORMAT, self.of_cog()], option=orjson.OPT_SORT_KEYS)).hexdigest()

    def of_cog(self) -> dict[str, Any]:
        """Return these options alone, as JSON's types."""
        return self.model_dump(mode="json", include=set(CogOptions.model_fields))


class RasterOptions(CogOptions):
    """All options of a generator of type raster."""

    destination: Annotated[str, AfterValidator(_check_destination)]
    """Where COGs go: s3://bucket/prefix/; each becomes <prefix><collection>/<id>.tif."""
    public_url: Annotated[str, AfterValidator(_check_public_url)] | None = None
    """Items name COGs below this URL instead of as s3://bucket/key."""
    checksum: Literal["sha256", "none"] = "sha256"
    """Have S3 check what arrives; none for stores that do not know checksums."""
    acl: str | None = None
    """A canned ACL for the COGs, such as bucket-owner-full-control."""
    storage_class: str | None = None
    """A storage class for the COGs, such as INTELLIGENT_TIERING."""
    requester_pays: bool = False
    """The destination's bucket is one where the requester pays."""
    source_requester_pays: bool = False
    """We agree to pay for reading from buckets where the requester pays."""
    allowed_hosts: tuple[str, ...] = ()
    """Hosts from which http and https URLs are fetched, with * and ? for any characters; none by default."""
    local_paths: tuple[Annotated[str, AfterValidator(_check_folder)], ...] = ()
    """Folders on this machine whose files requests may name; none by default."""
    drivers: Annotated[tuple[str, ...], Field(min_length=1)] = ("GTiff", "JP2OpenJPEG", "PNG", "JPEG")
    """GDAL's drivers that may open a source."""
    collection: str | None = None
    """The collection of items whose request names none."""
    asset: str | None = None
    """The asset that is the COG; default: data, or the only one of an item that is sent."""
    id_pattern: Pattern | None = None
    """A regular expression with the group `id`, searched in the file's name; default: the name without suffix."""
    datetime_pattern: Pattern | None = None
    """A regular expression searched in the file's name; the group `datetime`, the first, or all it finds."""
    datetime_format: str = "%Y%m%d"
    """How datetime_pattern's text is read (strptime); UTC unless it holds an offset."""
    max_source_bytes: Bytes = ByteSize(10_000_000_000)
    """A larger source is refused."""
    max_output_bytes: Bytes = ByteSize(20_000_000_000)
    """A raster with more bytes before compression is refused, and no file that is made grows larger."""
    transfer_timeout_s: Annotated[float, Field(gt=0)] = 600.0
    """Fetching one source may take this long, and so may uploading one COG."""
    threads: Annotated[int, Field(ge=1, le=64)] = 1
    """Threads that GDAL may use in each process."""
    gdal_cache_mb: Annotated[int, Field(ge=16)] = 128
    """Memory for GDAL's cache of blocks in each process."""

    @model_validator(mode="after")
    def _has_group(self) -> Self:
        if self.id_pattern is not None and "id" not in re.compile(self.id_pattern).groupindex:
            raise ValueError("id_pattern needs the group (?P<id>…)")
        return self

    @classmethod
    def of(cls, name: str, options: Mapping[str, Any]) -> RasterOptions:
        """Check the options of the generator `name`; raise ConfigError with a line a mistake, without values."""
        where = f"generators.{name}.options"
        try:
            return cls(**options)
        except ValidationError as error:
            lines = [
                f"{'.'.join([where, *map(str, each['loc'][:1])])}: {each['msg'].removeprefix('Value error, ')}"
                for each in error.errors(include_input=False, include_url=False)
            ]
            raise ConfigError(*dict.fromkeys(lines)) from None

    @property
    def bucket(self) -> str:
        """The destination's bucket."""
        return self.destination.removeprefix("s3://").partition("/")[0]

    @property
    def prefix(self) -> str:
        """What the keys of COGs begin with; what does not end with a slash stays as it is."""
        return self.destination.removeprefix("s3://").partition("/")[2]
