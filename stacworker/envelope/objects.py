"""Fetching S3 objects: through one client, bounded in number, size and time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from fnmatch import fnmatchcase
from http import HTTPStatus
from typing import Any, Protocol

import botocore.exceptions

from stacworker.aws import BAD_CREDENTIALS, NO_ACCESS, error_code, translated
from stacworker.envelope.forms import S3Location
from stacworker.envelope.gzipped import gunzip, is_gzip
from stacworker.errors import Permanent, StacworkerError, Transient, Unavailable
from stacworker.metrics import Metrics

__all__ = ["Objects", "S3Objects", "of_one_object", "probe"]

_CHUNK_BYTES = 1 << 18
_PROBE_TIMEOUT_S = 10.0


class Objects(Protocol):
    """Where the reader gets objects from."""

    max_concurrency: int

    async def get(self, location: S3Location) -> bytes:
        """Return the object's bytes, decompressed."""

    async def ping(self) -> None:
        """Raise `Unavailable` while objects cannot be had."""


class S3Objects:
    """S3, by way of a long-lived client that somebody else opens and closes.

    At most `max_concurrency` objects are fetched at the same time (give the client as many
    connections), each of at most `max_object_bytes` (as stored, and decompressed) and within
    `timeout_s`. Memory in use here is at most a small multiple of the product of the first two.

    Only objects in buckets that match one of `allowed_buckets` (shell patterns) are fetched: whoever may send
    messages could otherwise have anything published that this process may read.

    The current object is fetched, never the version that an event names: an older version may have
    been removed since, and as the newest event wins, the current object is what must end in the
    catalogue anyway.
    """

    def __init__(
        self,
        client: Any,
        metrics: Metrics,
        *,
        max_concurrency: int = 64,
        max_object_bytes: int = 64_000_000,
        timeout_s: float = 60.0,
        allowed_buckets: Sequence[str] = ("*",),
    ) -> None:
        self.max_concurrency = max_concurrency
        self._client = client
        self._metrics = metrics
        self._max_object_bytes = max_object_bytes
        self._timeout_s = timeout_s
        self._allowed_buckets = allowed_buckets
        self._slots = asyncio.Semaphore(max_concurrency)
        self._unavailable_bucket: str | None = None

    async def get(self, location: S3Location) -> bytes:
        """Return the object's bytes; gzip is undone, told by its first bytes.

        (Not by name or `Content-Encoding`: both often stay when the content has been unpacked already,
        and no JSON starts like gzip.)

        Raises `Permanent`, for no retry helps: `object_missing` (S3 lists and reads consistently),
        `bucket_missing`, `bucket_not_allowed`, `object_archived`, `object_too_large`, `bad_gzip`, `s3_refused`.
        Raises `Transient`, for this object may be had later and others now: `object_access_denied` (a
        policy that can be mended; without s3:ListBucket it also stands for a missing object),
        `object_timeout`, `object_interrupted`, or what failed while the bucket itself still answers.
        Raises `Unavailable("s3")` when the bucket does not answer either, or the credentials are not
        accepted: then no other object can be had.
        """
        if not any(fnmatchcase(location.bucket, pattern) for pattern in self._allowed_buckets):
            raise Permanent(
                f"bucket not allowed: {location}; allowed: {', '.join(self._allowed_buckets) or 'none'} "
                "(fetch.allowed_buckets)",
                error_class="bucket_not_allowed",
            )
        async with self._slots:
            try:
                with self._metrics.fetch_duration.time():
                    data = await self._fetch(location)
            except Unavailable:
                self._unavailable_bucket = location.bucket
                raise
            if not is_gzip(data):
                return data
            return await asyncio.to_thread(gunzip, data, self._max_object_bytes, str(location))

    async def ping(self) -> None:
        """Raise `Unavailable` while the bucket that last failed so still does."""
        if self._unavailable_bucket is not None:
            await probe(self._client, self._unavailable_bucket, self._timeout_s)
            self._unavailable_bucket = None

    async def _fetch(self, location: S3Location) -> bytes:
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        response = await self._open(location, deadline)
        body = response["Body"]
        try:
            stored_bytes = response.get("ContentLength") or 0
            if stored_bytes > self._max_object_bytes:
                raise self._too_large(location, stored_bytes)
            return await self._read(body, location, deadline)
        finally:
            # Drops the connection unless all was read. Cancellation comes this way as well.
            body.close()

    async def _open(self, location: S3Location, deadline: float) -> dict[str, Any]:
        try:
            with translated("s3", f"GET {location}"):
                return await self._get_object(location, deadline)
        except Unavailable as error:
            if error.error_class in NO_ACCESS:
                raise
            # One object that always fails must not stop all others for ever; an outage must.
            await probe(self._client, location.bucket, self._timeout_s)
            raise Transient(error.reason, error_class=error.error_class) from error

    async def _get_object(self, location: S3Location, deadline: float) -> dict[str, Any]:
        try:
            async with asyncio.timeout_at(deadline):
                response: dict[str, Any] = await self._client.get_object(Bucket=location.bucket, Key=location.key)
                return response
        except TimeoutError:
            raise TimeoutError(f"no answer within {self._timeout_s:g} s") from None
        except botocore.exceptions.ClientError as error:
            if (ours := of_one_object(error, location)) is not None:
                raise ours from error
            raise

    async def _read(self, body: Any, location: S3Location, deadline: float) -> bytes:
        chunks: list[bytes] = []
        read_bytes = 0
        try:
            with translated("s3", f"reading {location}"):
                async with asyncio.timeout_at(deadline):
                    while chunk := await body.read(_CHUNK_BYTES):
                        read_bytes += len(chunk)
                        if read_bytes > self._max_object_bytes:
                            raise self._too_large(location, read_bytes)
                        chunks.append(chunk)
        except Unavailable as error:
            # S3 had begun to answer, so it is there.
            if isinstance(error.__cause__, TimeoutError):
                reason = f"only {read_bytes} bytes came within {self._timeout_s:g} s (fetch.timeout_s): {location}"
                raise Transient(reason, error_class="object_timeout") from error
            reason = f"interrupted after {read_bytes} bytes: {error.reason}"
            raise Transient(reason, error_class="object_interrupted") from error
        return b"".join(chunks)

    def _too_large(self, location: S3Location, size_bytes: int) -> Permanent:
        return Permanent(
            f"too large: {location} has {size_bytes} bytes or more, at most {self._max_object_bytes} are read "
            "(fetch.max_object_bytes)",
            error_class="object_too_large",
        )


async def probe(client: Any, bucket: str, timeout_s: float = _PROBE_TIMEOUT_S) -> None:
    """Raise `Unavailable` unless the bucket answers: anything that is about the request will do."""
    with translated("s3", f"listing s3://{bucket}"):
        try:
            async with asyncio.timeout(min(_PROBE_TIMEOUT_S, timeout_s)):
                await client.list_objects_v2(Bucket=bucket, MaxKeys=1)
        except botocore.exceptions.ClientError as error:
            if _status(error) >= HTTPStatus.TOO_MANY_REQUESTS or error_code(error) in BAD_CREDENTIALS:
                raise


def of_one_object(error: botocore.exceptions.ClientError, location: S3Location) -> StacworkerError | None:
    """Return the error for an answer that concerns this object alone, or None for all others.

    https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
    """
    code, status = error_code(error), _status(error)
    if code in BAD_CREDENTIALS:
        return None
    if code == "NoSuchBucket":
        return Permanent(f"no such bucket: {location}", error_class="bucket_missing")
    if status == HTTPStatus.NOT_FOUND:
        return Permanent(
            f"no such object: {location}; it may have been removed since, or the message names a wrong key",
            error_class="object_missing",
        )
    if code == "InvalidObjectState":
        return Permanent(
            f"archived: {location}; restore it, then send the message again", error_class="object_archived"
        )
    if status == HTTPStatus.FORBIDDEN:
        return Transient(
            f"access denied ({code}): {location}; allow s3:GetObject (and kms:Decrypt) there; without "
            "s3:ListBucket a missing object looks like this too",
            error_class="object_access_denied",
        )
    return None


def _status(error: botocore.exceptions.ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
