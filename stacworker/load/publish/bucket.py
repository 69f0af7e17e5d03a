"""Where objects with items go: a bucket and the beginning of their keys."""

from __future__ import annotations

from typing import Any, Self

import botocore.exceptions

from stacworker.api import Document
from stacworker.aws import error_code, translated
from stacworker.envelope.locations import MAX_KEY_BYTES, segment
from stacworker.errors import Permanent, Unavailable
from stacworker.load.publish.items import ids_of, name_of, reaching

GEOJSON = "application/geo+json"


class Bucket:
    """Writes objects (`s3:PutObject`). The last writer of a key wins. `ping` needs `s3:ListBucket`."""

    def __init__(self, client: Any, name: str, prefix: str = "") -> None:
        self.name = name
        self._client = client
        self._prefix = prefix

    @classmethod
    def at(cls, client: Any, url: str) -> Self:
        """Return the place that `s3://bucket/prefix/` names."""
        name, _, prefix = url.removeprefix("s3://").partition("/")
        return cls(client, name, prefix)

    def key(self, document: Document, *segments: str, ending: str) -> str:
        """Return a key of these segments, odd characters percent-encoded; raise `Permanent` for one too long."""
        key = f"{self._prefix}{'/'.join(map(segment, segments))}{ending}"
        if len(key.encode()) > MAX_KEY_BYTES:
            raise Permanent(
                f"{name_of(document)} would need a key of {len(key.encode()):,} bytes, S3 takes {MAX_KEY_BYTES:,}",
                error_class="too_large",
                **ids_of(document),
            )
        return key

    async def write(self, key: str, data: bytes, content_type: str) -> None:
        """Write one object; return when S3 has it.

        Raises `Permanent` for what S3 refuses of this object; `Unavailable`, also for a bucket that is not there.
        """
        try:
            with translated("s3", f"writing s3://{self.name}/{key}"):
                await self._client.put_object(Bucket=self.name, Key=key, Body=data, ContentType=content_type)
        except Permanent as error:
            cause = error.__cause__
            if isinstance(cause, botocore.exceptions.ClientError) and error_code(cause) == "NoSuchBucket":
                raise Unavailable(error.reason, dependency="s3", error_class="bucket_missing") from error
            raise

    async def ping(self) -> None:
        """Raise `Unavailable` when the bucket does not answer."""
        with reaching("s3", f"asking for bucket {self.name}"):
            await self._client.head_bucket(Bucket=self.name)
