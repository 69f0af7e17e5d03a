"""A file of ours → an object in S3, in one request or in parts, checked by S3 as it arrives."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, Protocol

import botocore.exceptions

from stacworker.aws import error_code
from stacworker.envelope.forms import S3Location
from stacworker.errors import Permanent, Transient, Unavailable
from stacworker.generate.transfer.s3 import S3

PART_BYTES = 16 << 20
"""Parts of a file as they are uploaded; one that is no larger goes in one request."""
_PARTS_AT_ONCE = 4
_MAX_PARTS = 10_000  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_ABORT_S = 10.0


class UploadOptions(Protocol):
    """How objects are written; None leaves it to the bucket."""

    @property
    def requester_pays(self) -> bool:
        """Whether the bucket is one where the requester pays."""

    @property
    def checksum(self) -> str:
        """sha256: S3 checks what arrives; none for stores that do not know checksums."""

    @property
    def acl(self) -> str | None:
        """A canned ACL."""

    @property
    def storage_class(self) -> str | None:
        """A storage class."""

    @property
    def transfer_timeout_s(self) -> float:
        """How long one file may take."""


def payer(options: UploadOptions) -> dict[str, str]:
    """Return what calls need where the requester pays."""
    return {"RequestPayer": "requester"} if options.requester_pays else {}


class Upload:
    """Writes files of one kind; `metadata` goes with an object to whoever asks for its head."""

    def __init__(self, s3: S3, options: UploadOptions, *, content_type: str) -> None:
        self._s3 = s3
        self._options = options
        self._content_type = content_type
        self._payer = payer(options)

    async def file(self, path: Path, digest: str, place: S3Location, metadata: Mapping[str, str] | None = None) -> str:
        """Write a file to its place; return its ETag, which S3 gives when it has all of it.

        Raises Transient or Unavailable.
        """
        try:
            async with asyncio.timeout(self._options.transfer_timeout_s):
                with path.open("rb") as file:
                    size_bytes = os.fstat(file.fileno()).st_size
                    if size_bytes <= PART_BYTES:
                        return await self._put(file.read(), digest, place, metadata or {})
                    return await self._put_parts(file, size_bytes, place, metadata or {})
        except TimeoutError:
            text = f"{place} was not written within {self._options.transfer_timeout_s:g} s (options.transfer_timeout_s)"
            raise Transient(text, error_class="upload_timeout") from None

    async def _put(self, data: bytes, digest: str, place: S3Location, metadata: Mapping[str, str]) -> str:
        checksum = {}
        if self._options.checksum == "sha256":
            checksum["ChecksumSHA256"] = base64.b64encode(bytes.fromhex(digest)).decode()
        answer = await self.call("put_object", place, Body=data, **checksum, **self._of_object(metadata), **self._payer)
        return str(answer["ETag"])

    async def _put_parts(self, file: IO[bytes], size_bytes: int, place: S3Location, metadata: Mapping[str, str]) -> str:
        checksum = {"ChecksumAlgorithm": "SHA256"} if self._options.checksum == "sha256" else {}
        begun = await self.call(
            "create_multipart_upload", place, **checksum, **self._of_object(metadata), **self._payer
        )
        upload = {"UploadId": begun["UploadId"], **self._payer}
        try:
            parts = await self._put_all(file, max(PART_BYTES, -(-size_bytes // _MAX_PARTS)), place, upload)
            done = await self.call("complete_multipart_upload", place, MultipartUpload={"Parts": parts}, **upload)
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
        answer = await self.call("upload_part", place, PartNumber=number, Body=data, **checksum, **upload)
        return {"PartNumber": number, "ETag": answer["ETag"], **checksum}

    async def call(self, name: str, where: S3Location, **arguments: Any) -> dict[str, Any]:
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

    def _of_object(self, metadata: Mapping[str, str]) -> dict[str, Any]:
        options = {"ACL": self._options.acl, "StorageClass": self._options.storage_class}
        return {
            "ContentType": self._content_type,
            "Metadata": dict(metadata),
            **{name: value for name, value in options.items() if value is not None},
        }


def _sha256(data: bytes) -> bytes:
    return sha256(data).digest()
