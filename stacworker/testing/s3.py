"""S3 in memory: what the reader fetches from, with the notifications that S3 would send."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from stacworker.envelope.forms import S3Location
from stacworker.envelope.gzipped import gunzip, is_gzip
from stacworker.envelope.locations import s3_location
from stacworker.errors import Permanent, Unavailable
from stacworker.testing.messages import s3_record, s3_records, text

Content = bytes | str | dict[str, Any] | Exception

_MAX_BYTES = 1 << 30


class FakeS3:
    """Satisfies `stacworker.envelope.objects.Objects`. Objects are named by their URL, `s3://bucket/key`.

    An exception in an object's place is raised when it is fetched; `unavailable`, once set, is raised by `ping`.
    `got` has the URLs fetched so far, `now` and `most` how many are and were fetched at the same time.
    """

    def __init__(self, objects: Mapping[str, Content] | None = None, *, max_concurrency: int = 4) -> None:
        self.max_concurrency = max_concurrency
        self.unavailable: Unavailable | None = None
        self.got: list[str] = []
        self.now = self.most = 0
        self._objects: dict[str, bytes | Exception] = {}
        self._sequence = itertools.count(1)
        for url, content in (objects or {}).items():
            self.put(url, content)

    def put(self, url: str, content: Content) -> str:
        """Store an object (a dict as JSON) in place of what was there; return its URL."""
        location = _location(url)
        if isinstance(content, dict):
            content = text(content)
        self._objects[str(location)] = content.encode() if isinstance(content, str) else content
        return str(location)

    def remove(self, url: str) -> None:
        """Remove an object; harmless where there is none."""
        self._objects.pop(str(_location(url)), None)

    def read(self, url: str) -> bytes:
        """Return an object's bytes as stored, without counting it as fetched; raise as `get` does."""
        location = _location(url)
        found = self._objects.get(str(location))
        if found is None:
            raise Permanent(f"no such object: {location}", error_class="object_missing")
        if isinstance(found, Exception):
            raise found
        return found

    def event(self, *urls: str, name: str = "ObjectCreated:Put") -> str:
        """Return S3's notification about these objects, which need not be there; later ones are newer."""
        records = []
        for location in map(_location, urls):
            content = self._objects.get(str(location))
            records.append(
                s3_record(
                    location.bucket,
                    location.key,
                    name=name,
                    size_bytes=len(content) if isinstance(content, bytes) else 1024,
                    sequencer=f"{next(self._sequence):018X}",
                )
            )
        return s3_records(records)

    def keys(self, bucket: str, prefix: str = "") -> tuple[str, ...]:
        """Return the keys of a bucket that start with `prefix`, sorted."""
        start = f"s3://{bucket}/"
        return tuple(url.removeprefix(start) for url in self.list(start + prefix))

    async def get(self, location: S3Location) -> bytes:
        """Return the object's bytes, decompressed; raise `Permanent` where there is none."""
        self.got.append(str(location))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(0)
            data = self.read(str(location))
            return gunzip(data, _MAX_BYTES, str(location)) if is_gzip(data) else data
        finally:
            self.now -= 1

    async def ping(self) -> None:
        """Raise what `unavailable` says."""
        if self.unavailable:
            raise self.unavailable

    def list(self, prefix: str = "s3://") -> Sequence[str]:
        """Return the URLs of all objects that start with `prefix`, sorted."""
        return sorted(url for url in self._objects if url.startswith(prefix))


def _location(url: str) -> S3Location:
    if (location := s3_location(url)) is None:
        raise ValueError(f"{url!r}: expected s3://bucket/key")
    return location
