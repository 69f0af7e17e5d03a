"""Where files come from: objects in S3, URLs and files in folders that settings allow → a file of our own."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, Protocol

import botocore.exceptions
import orjson

from stacworker.envelope.forms import S3Location
from stacworker.envelope.locations import s3_location
from stacworker.envelope.objects import of_one_object
from stacworker.errors import Permanent, StacworkerError, Transient, Unavailable
from stacworker.generate.child.local_paths import is_allowed
from stacworker.generate.transfer.s3 import S3

CHUNK_BYTES = 1 << 20
_SHOWN_CHARS = 300


@dataclass(frozen=True, slots=True)
class Opened:
    """A source about to be read.

    `identity` tells its contents from all others under any name, "" where its store says nothing that does;
    `chunks` raises Permanent or Transient.
    """

    identity: str
    size_bytes: int | None
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Saved:
    """A source as a file of ours."""

    size_bytes: int
    sha256: str


class SourceOptions(Protocol):
    """What may be read, and how much of it."""

    @property
    def max_source_bytes(self) -> int:
        """A larger source is refused."""

    @property
    def source_requester_pays(self) -> bool:
        """Whether we agree to pay for reading."""

    @property
    def local_paths(self) -> Sequence[str]:
        """Folders on this machine whose files may be named."""


class Web(Protocol):
    """What opens http and https URLs."""

    def open(self, url: str) -> Any:
        """Return an async context manager that gives `Opened`."""


def identity(*parts: object) -> str:
    """Return one text for what a source is and which of its versions; a URL's secrets cannot be read from it."""
    return sha256(orjson.dumps(parts)).hexdigest()


class Sources:
    """Opens what requests name, and saves it; nothing that settings do not allow."""

    def __init__(self, s3: S3, web: Web | None, options: SourceOptions, allowed_buckets: Sequence[str]) -> None:
        self._s3 = s3
        self._web = web
        self._options = options
        self._allowed_buckets = allowed_buckets

    @asynccontextmanager
    async def open(self, href: str) -> AsyncIterator[Opened]:
        """Open a source; raises Permanent when it is not allowed or not there, Transient or Unavailable else."""
        location = s3_location(href)
        if location is not None:
            opening = self._open_s3(location)
        elif href.startswith(("http://", "https://")):
            if self._web is None:
                raise _not_allowed(href, "no host is allowed (allowed_hosts)")
            opening = self._web.open(href)
        else:
            opening = self._open_local(href)
        async with opening as opened:
            self._check_size(href, opened.size_bytes or 0)
            yield opened

    async def save(self, opened: Opened, href: str, path: Path) -> Saved:
        """Write a source to `path`, and count on the way; raises Permanent when it is larger than it may be."""
        digest, size_bytes = sha256(), 0
        try:
            with path.open("xb") as file:
                async for chunk in opened.chunks:
                    size_bytes += len(chunk)
                    self._check_size(href, size_bytes)
                    await asyncio.to_thread(_write, file, digest, chunk)
        except StacworkerError:
            raise
        except OSError as error:
            raise Transient(f"no temporary file can be written (TMPDIR): {error}", error_class="no_space") from error
        if opened.size_bytes is not None and size_bytes != opened.size_bytes:
            text = f"{_shown(href)}: {size_bytes} bytes came, {opened.size_bytes} were announced"
            raise Transient(text, error_class="source_interrupted")
        return Saved(size_bytes, digest.hexdigest())

    def _check_size(self, href: str, size_bytes: int) -> None:
        if size_bytes > self._options.max_source_bytes:
            raise Permanent(
                f"too large: {_shown(href)} has {size_bytes:,} bytes or more, at most "
                f"{self._options.max_source_bytes:,} are read (max_source_bytes)",
                error_class="source_too_large",
            )

    @asynccontextmanager
    async def _open_s3(self, location: S3Location) -> AsyncIterator[Opened]:
        if not any(fnmatchcase(location.bucket, pattern) for pattern in self._allowed_buckets):
            allowed = ", ".join(self._allowed_buckets) or "none"
            raise _not_allowed(str(location), f"allowed buckets: {allowed} (fetch.allowed_buckets)")
        payer = {"RequestPayer": "requester"} if self._options.source_requester_pays else {}
        async with self._s3.reaching("GET", location):
            try:
                answer = await self._s3.client.get_object(Bucket=location.bucket, Key=location.key, **payer)
            except botocore.exceptions.ClientError as error:
                if (ours := of_one_object(error, location)) is not None:
                    raise ours from error
                raise
        body = answer["Body"]
        try:
            version = identity(str(location), answer.get("ETag"), str(answer.get("LastModified")))
            yield Opened(version, answer.get("ContentLength"), self._s3_chunks(body, location))
        finally:
            body.close()  # drops the connection unless all was read

    async def _s3_chunks(self, body: Any, location: S3Location) -> AsyncIterator[bytes]:
        while True:
            try:
                async with self._s3.reaching("reading", location):
                    chunk: bytes = await body.read(CHUNK_BYTES)
            except Unavailable as error:
                # S3 had begun to answer; whether it still does, the next try will tell.
                raise Transient(error.reason, error_class="source_interrupted") from error
            if not chunk:
                return
            yield chunk

    @asynccontextmanager
    async def _open_local(self, href: str) -> AsyncIterator[Opened]:
        path = href.removeprefix("file://")
        folders = self._options.local_paths
        if not path.startswith("/") or path.startswith("/vsi") or not is_allowed(href, folders):
            there = ", ".join(folders) or "none"
            what = f"only s3://, https:// and files in these folders are read: {there} (local_paths)"
            raise _not_allowed(href, what)
        try:
            file = await asyncio.to_thread(_open_regular, path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError) as error:
            raise Permanent(f"no such file: {_shown(href)}", error_class="source_missing") from error
        except OSError as error:
            raise Transient(f"{_shown(href)}: {error.strerror}", error_class="source_access_denied") from error
        try:
            told = os.fstat(file.fileno())
            version = identity(path, told.st_size, told.st_mtime_ns, told.st_ino)
            yield Opened(version, told.st_size, _file_chunks(file))
        finally:
            file.close()


async def _file_chunks(file: IO[bytes]) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
        yield chunk


def _open_regular(path: str) -> IO[bytes]:
    """Open a file, and nothing that could block, such as a pipe."""
    descriptor = os.open(os.path.realpath(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IsADirectoryError(path)
    return os.fdopen(descriptor, "rb")


def _write(file: IO[bytes], digest: Any, chunk: bytes) -> None:
    digest.update(chunk)
    file.write(chunk)


def _not_allowed(href: str, what: str) -> Permanent:
    return Permanent(f"not allowed: {_shown(href)}: {what}", error_class="source_not_allowed")


def _shown(href: str) -> str:
    """Shorten an address for people; the query of a signed URL is as good as a password."""
    return href.partition("?")[0][:_SHOWN_CHARS]
