"""Where COGs go, and what is known of those that are there: a small JSON object beside each.

The COG is written first, the object that tells of it second, and nobody hears of either before both are there. A
process that dies in between leaves a COG of which nothing is known: it is made again.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import botocore.exceptions
import orjson

from stacworker.aws import error_code
from stacworker.envelope.forms import S3Location
from stacworker.envelope.locations import MAX_KEY_BYTES, segment
from stacworker.errors import Permanent, Transient, Unavailable
from stacworker.generate.raster.asked import Asked
from stacworker.generate.raster.item import MEDIA_TYPE
from stacworker.generate.raster.options import RasterOptions
from stacworker.generate.raster.s3 import S3

PART_BYTES = 16 << 20
"""Parts of a COG as they are uploaded; one that is no larger goes in one request."""
_PARTS_AT_ONCE = 4
_MAX_PARTS = 10_000  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_ABORT_S = 10.0
_MAX_RECORD_BYTES = 4_000_000


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a COG.

    `source_identity` ("" where its store tells none) and `source_sha256` are of the file it was made from,
    `options` is the digest of the options it was made with, `told` what the file tells for its item.
    """

    source: str
    source_identity: str
    source_sha256: str
    options: str
    cog_etag: str
    cog_bytes: int
    cog_sha256: str
    told: Mapping[str, Any]

    def is_of(self, options: str, *, identity: str = "", content: str = "") -> bool:
        """Tell whether the COG was made with these options from a source with this identity or this content."""
        same = (identity and identity == self.source_identity) or (content and content == self.source_sha256)
        return options == self.options and bool(same)


class Destination:
    """A bucket, or a part of one."""

    def __init__(self, s3: S3, options: RasterOptions) -> None:
        self._s3 = s3
        self._options = options
        self._payer = {"RequestPayer": "requester"} if options.requester_pays else {}

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
        """Write a file to its place; return its ETag, which S3 gives when it has all of it.

        Raises Transient or Unavailable.
        """
        try:
            async with asyncio.timeout(self._options.transfer_timeout_s):
                with path.open("rb") as file:
                    size_bytes = os.fstat(file.fileno()).st_size
                    if size_bytes <= PART_BYTES:
                        return await self._put(file.read(), digest, place)
                    return await self._put_parts(file, size_bytes, place)
        except TimeoutError:
            text = f"{place} was not written within {self._options.transfer_timeout_s:g} s (options.transfer_timeout_s)"
            raise Transient(text, error_class="upload_timeout") from None

    async def remember(self, record: Record, place: S3Location) -> None:
        """Write down what is known of a COG that is there."""
        text = orjson.dumps(asdict(record))
        where = S3Location(place.bucket, place.key + _RECORD_SUFFIX)
        await self._call("put_object", where, Body=text, ContentType="application/json", **self._payer)

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

    async def _put(self, data: bytes, digest: str, place: S3Location) -> str:
        checksum = {}
        if self._options.checksum == "sha256":
            checksum["ChecksumSHA256"] = base64.b64encode(bytes.fromhex(digest)).decode()
        answer = await self._call("put_object", place, Body=data, **checksum, **self._of_object(), **self._payer)
        return str(answer["ETag"])

    async def _put_parts(self, file: IO[bytes], size_bytes: int, place: S3Location) -> str:
        checksum = {"ChecksumAlgorithm": "SHA256"} if self._options.checksum == "sha256" else {}
        begun = await self._call("create_multipart_upload", place, **checksum, **self._of_object(), **self._payer)
        upload = {"UploadId": begun["UploadId"], **self._payer}
        try:
            parts = await self._put_all(file, max(PART_BYTES, -(-size_bytes // _MAX_PARTS)), place, upload)
            done = await self._call("complete_multipart_upload", place, MultipartUpload={"Parts": parts}, **upload)
        except BaseException:
            # Its parts would cost money for ever; a lifecycle rule sees to what a crash leaves.
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_ABORT_S):
                    await self._s3.client.abort_multipart_upload(Bucket=place.bucket, Key=place.key, **upload)
            raise
        return str(done["ETag"])

    async def _put_all(
        self, file: IO[bytes], part_bytes: int, place: S3Location, upload: Mapping[str, str]
    ) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = []
        while True:
            read = [await asyncio.to_thread(file.read, part_bytes) for _ in range(_PARTS_AT_ONCE)]
            some = list(enumerate((data for data in read if data), start=len(parts) + 1))
            if not some:
                return parts
            # All are waited for: none may still write while the upload is aborted.
            results = await asyncio.gather(
                *(self._put_part(number, data, place, upload) for number, data in some), return_exceptions=True
            )
            for result in results:
                if isinstance(result, BaseException):
                    raise result
                parts.append(result)

    async def _put_part(self, number: int, data: bytes, place: S3Location, upload: Mapping[str, str]) -> dict[str, Any]:
        checksum = {}
        if self._options.checksum == "sha256":
            checksum["ChecksumSHA256"] = base64.b64encode(await asyncio.to_thread(_sha256, data)).decode()
        answer = await self._call("upload_part", place, PartNumber=number, Body=data, **checksum, **upload)
        return {"PartNumber": number, "ETag": answer["ETag"], **checksum}

    async def _call(self, name: str, where: S3Location, **arguments: Any) -> dict[str, Any]:
        """Make a call that writes; what S3 refuses is about the destination, and so about every item."""
        try:
            async with self._s3.reaching("writing", where):
                call = getattr(self._s3.client, name)
                answer: dict[str, Any] = await call(Bucket=where.bucket, Key=where.key, **arguments)
                return answer
        except Permanent as error:
            cause = error.__cause__
            missing = isinstance(cause, botocore.exceptions.ClientError) and error_code(cause) == "NoSuchBucket"
            kind = "bucket_missing" if missing else error.error_class
            raise Unavailable(error.reason, dependency="s3", error_class=kind) from error

    def _of_object(self) -> dict[str, str]:
        options = {"ACL": self._options.acl, "StorageClass": self._options.storage_class}
        return {"ContentType": MEDIA_TYPE, **{name: value for name, value in options.items() if value is not None}}


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


def _sha256(data: bytes) -> bytes:
    return sha256(data).digest()
