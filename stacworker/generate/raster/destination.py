"""Where COGs go, and what is known of those that are there: a small JSON object beside each.

The COG is written first, the object that tells of it second, and nobody hears of either before both are there. A
process that dies in between leaves a COG of which nothing is known: it is made again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

import botocore.exceptions
import orjson

from stacworker.api import Version
from stacworker.aws import error_code
from stacworker.envelope.forms import S3Location
from stacworker.envelope.locations import MAX_KEY_BYTES, segment
from stacworker.errors import Permanent
from stacworker.generate.raster.asked import Asked
from stacworker.generate.raster.item import MEDIA_TYPE
from stacworker.generate.raster.options import RasterOptions
from stacworker.generate.transfer.s3 import S3
from stacworker.generate.transfer.upload import Upload, payer

_MAX_RECORD_BYTES = 4_000_000


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a COG.

    `source_identity` ("" where its store tells none) and `source_sha256` are of the file it was made from,
    `options` is the digest of the options it was made with, `told` what the file tells for its item, `time_ms` and
    `sequencer` the version (`api.Version`) of the newest request for it.
    """

    source: str
    source_identity: str
    source_sha256: str
    options: str
    cog_etag: str
    cog_bytes: int
    cog_sha256: str
    told: Mapping[str, Any]
    time_ms: int = 0
    sequencer: str = ""

    def is_newer_than(self, version: Version) -> bool:
        """Tell whether a message newer than this asked for the COG."""
        return Version(self.time_ms, self.sequencer) > version

    def at(self, version: Version) -> Record:
        """Return the record with the version of the newest request for its COG."""
        return replace(self, time_ms=version.time_ms, sequencer=version.sequencer)

    def is_of(self, options: str, *, identity: str = "", content: str = "") -> bool:
        """Tell whether the COG was made with these options from a source with this identity or this content."""
        same = (identity and identity == self.source_identity) or (content and content == self.source_sha256)
        return options == self.options and bool(same)


class Destination:
    """A bucket, or a part of one."""

    def __init__(self, s3: S3, options: RasterOptions) -> None:
        self._s3 = s3
        self._options = options
        self._payer = payer(options)
        self._upload = Upload(s3, options, content_type=MEDIA_TYPE)

    def place(self, asked: Asked) -> S3Location:
        """Return where an item's COG belongs; raises Permanent when the names are too long for a key."""
        key = f"{self._options.prefix}{segment(asked.collection)}/{segment(asked.id)}.tif"
        if len(key.encode()) > MAX_KEY_BYTES - len(_RECORD_SUFFIX):
            text = f"item {asked.id!r} of collection {asked.collection!r} would need too long a key ({asked.origin})"
            raise Permanent(text, error_class="too_large", collection=asked.collection, item_id=asked.id)
        return S3Location(self._options.bucket, key)

    def href(self, place: S3Location) -> str:
        """Return what items call a COG."""
        if self._options.public_url is None:
            return str(place)
        return self._options.public_url + quote(place.key.removeprefix(self._options.prefix))

    async def check(self) -> None:
        """Raise Permanent when there is no such bucket; anything else shows with the first COG."""
        try:
            await self._s3.client.head_bucket(Bucket=self._options.bucket)
        except botocore.exceptions.ClientError as error:
            if error_code(error) in ("404", "NoSuchBucket"):
                raise Permanent(f"there is no bucket {self._options.bucket}", error_class="bucket_missing") from error
        except (botocore.exceptions.BotoCoreError, OSError):
            pass

    async def known(self, place: S3Location) -> Record | None:
        """Return what is known of a COG, None when nothing is or the COG is no longer the one it is about."""
        record = _record(await self._read_record(place))
        if record is None:
            return None
        async with self._s3.reaching("HEAD", place):
            try:
                there = await self._s3.client.head_object(Bucket=place.bucket, Key=place.key, **self._payer)
            except botocore.exceptions.ClientError as error:
                if _is_missing(error):
                    return None
                raise
        return record if there.get("ETag") == record.cog_etag else None

    async def upload(self, path: Path, digest: str, place: S3Location) -> str:
        """Write a file to its place; return its ETag. Raises as `Upload.file` does."""
        return await self._upload.file(path, digest, place)

    async def remember(self, record: Record, place: S3Location) -> None:
        """Write down what is known of a COG that is there."""
        text = orjson.dumps(asdict(record))
        where = S3Location(place.bucket, place.key + _RECORD_SUFFIX)
        await self._upload.call("put_object", where, Body=text, ContentType="application/json", **self._payer)

    async def _read_record(self, place: S3Location) -> bytes | None:
        where = S3Location(place.bucket, place.key + _RECORD_SUFFIX)
        async with self._s3.reaching("GET", where):
            try:
                answer = await self._s3.client.get_object(Bucket=where.bucket, Key=where.key, **self._payer)
            except botocore.exceptions.ClientError as error:
                if _is_missing(error) or error_code(error) == "NoSuchBucket":
                    return None
                raise
            body = answer["Body"]
            try:
                too_large = (answer.get("ContentLength") or 0) > _MAX_RECORD_BYTES
                return None if too_large else await body.read()
            finally:
                body.close()


_RECORD_SUFFIX = ".json"


def _record(data: bytes | None) -> Record | None:
    """Read what is known; whatever is not ours, or of an older form, is nothing."""
    try:
        fields = orjson.loads(data or b"null")
        record = Record(**fields)
        told = record.told["geometry"], record.told["bbox"], record.told["properties"], record.told["asset"]
    except (orjson.JSONDecodeError, TypeError, KeyError):
        return None
    return record if all(told) else None


def _is_missing(error: botocore.exceptions.ClientError) -> bool:
    """Tell whether there is no such object: 403 says so where we may not list the bucket."""
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return status in (HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN) and error_code(error) in (
        "403",
        "404",
        "AccessDenied",
        "NoSuchKey",
        "NotFound",
    )
