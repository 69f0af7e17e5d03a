"""The generator of type `raster`: file → COG in S3 → item, each step only after the one before."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from hashlib import file_digest
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stacworker.api import Request, Version
from stacworker.envelope.forms import S3Location
from stacworker.envelope.locations import s3_location
from stacworker.errors import ConfigError, Permanent, Transient
from stacworker.generate.environment import scrubbed
from stacworker.generate.pool import Pool
from stacworker.generate.raster.asked import Asked, asked
from stacworker.generate.raster.destination import Destination, Record
from stacworker.generate.raster.item import made_item
from stacworker.generate.raster.options import RasterOptions
from stacworker.generate.raster.turns import Turns
from stacworker.generate.recipe import Limits, Recipe, Target
from stacworker.generate.transfer.s3 import S3
from stacworker.generate.transfer.source import Opened, Saved, Sources, Web
from stacworker.metrics import Metrics
from stacworker.redaction import redacted

_TARGET = "stacworker_child.raster:Rasters"
_INSTALL = "type raster needs more: pip install 'stacworker[raster]'"
_REMOVALS = 50
_REMOVE_AGAIN_S = 0.1


class RasterGenerator:
    """Makes a COG and an item of each request's file.

    `s3` is an open client for sources and destination; objects are read only from `allowed_buckets`. Requests
    for the same destination are worked on one after another, and at most one more than there are processes
    have files on the disk.

    Entering raises ConfigError when the destination's bucket or what children need is not there.
    """

    def __init__(
        self,
        *,
        name: str,
        options: Mapping[str, Any],
        limits: Limits,
        metrics: Metrics,
        environ: Mapping[str, str],
        s3: Any,
        allowed_buckets: Sequence[str] = ("*",),
        env: Sequence[str] = (),
        path: Sequence[str] = (),
        interpreter: str = sys.executable,
    ) -> None:
        self._name = name
        self._options = RasterOptions.of(name, options)
        self._digest = self._options.digest
        of_child = {
            "cog": self._options.of_cog(),
            "drivers": list(self._options.drivers),
            "max_output_bytes": self._options.max_output_bytes,
            "threads": self._options.threads,
            "gdal_cache_mb": self._options.gdal_cache_mb,
        }
        recipe = Recipe(
            name=name,
            target=Target(_TARGET, of_child, factory=True),
            limits=limits,
            env=scrubbed(environ, also=env),
            path=tuple(path),
            interpreter=interpreter,
        )
        self._pool = Pool(recipe, metrics)
        self._s3 = S3(s3)
        self._destination = Destination(self._s3, self._options)
        self._allowed_buckets = allowed_buckets
        self._sources = Sources(self._s3, None, self._options, allowed_buckets)
        self._turns = Turns(name, limits.processes + 1)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            web = await self._open_web(stack)
            self._sources = Sources(self._s3, web, self._options, self._allowed_buckets)
            await self._check_destination()
            try:
                await stack.enter_async_context(self._pool)
            except ConfigError as error:
                if "ModuleNotFoundError" not in error.reason:
                    raise
                raise ConfigError(f"{error.reason}\n{_INSTALL}") from error
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    async def generate(self, request: Request) -> Sequence[dict[str, Any]]:
        """Return the item of one request, once its COG is in its place.

        Raises Permanent, Transient; Unavailable when S3 is away or no child process can be started.
        """
        wanted = asked(request, self._options)
        place = self._destination.place(wanted)
        if s3_location(wanted.href) == place:
            text = (
                f"{wanted.origin}: the file is where its own COG would go: keep sources apart from options.destination"
            )
            raise Permanent(text, error_class="raster_usage", collection=wanted.collection, item_id=wanted.id)
        async with self._turns.of(str(place)):
            record = await self._made(wanted, place, request.version)
        return [self._item(wanted, record, place)]

    def stop_starting(self) -> None:
        """Start no further job (the drain has begun); what waits fails with Unavailable."""
        self._turns.stop()
        self._pool.stop_starting()

    async def ping(self) -> None:
        """Raise Unavailable while S3 is away, or no child process is there and none can be started."""
        await self._s3.ping()
        await self._pool.ping()

    async def _open_web(self, stack: AsyncExitStack) -> Web | None:
        if not self._options.allowed_hosts:
            return None
        try:
            from stacworker.generate.transfer.web import HttpSources, http_client  # noqa: PLC0415 - an extra's
        except ImportError as error:
            text = f"generators.{self._name}: {error}: {_INSTALL}"
            raise ConfigError(text) from error
        client = await stack.enter_async_context(http_client())
        return HttpSources(client, self._options.allowed_hosts)

    async def _check_destination(self) -> None:
        try:
            await self._destination.check()
        except Permanent as error:
            raise ConfigError(f"generators.{self._name}.options.destination: {error.reason}") from error

    async def _made(self, wanted: Asked, place: S3Location, version: Version) -> Record:
        """Return what is known of the COG, and make it first unless it was made of this source before."""
        known = await self._destination.known(place)
        if known is not None and known.is_newer_than(version):
            return known  # a late older message: the newer item's COG stays, and its own item will be superseded
        async with self._folder() as folder:
            async with self._sources.open(wanted.href) as opened:
                if known is not None and known.is_of(self._digest, identity=opened.identity):
                    return await self._confirmed(known, place, version, opened.identity)
                saved = await self._save(opened, wanted, folder / "source")
            if known is not None and known.is_of(self._digest, content=saved.sha256):
                return await self._confirmed(known, place, version, opened.identity)
            record = await self._make(wanted, opened.identity, saved, folder, place)
            await self._destination.remember(record := record.at(version), place)
            return record

    async def _confirmed(self, known: Record, place: S3Location, version: Version, identity: str) -> Record:
        """Note that a COG that is there is what a message asked for; nothing is written when that is known."""
        record = replace(known, source_identity=identity).at(version)
        if record != known:
            await self._destination.remember(record, place)
        return record

    async def _save(self, opened: Opened, wanted: Asked, path: Path) -> Saved:
        limit_s = self._options.transfer_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await self._sources.save(opened, wanted.href, path)
        except TimeoutError:
            text = f"{wanted.origin}: its file did not come within {limit_s:g} s (options.transfer_timeout_s)"
            raise Transient(text, error_class="source_timeout") from None

    async def _make(self, wanted: Asked, identity: str, saved: Saved, folder: Path, place: S3Location) -> Record:
        """Have the COG made of a saved source, and bring it to its place; what is known of it is not written yet."""
        cog = folder / "cog.tif"
        job = {"source": str(folder / "source"), "cog": str(cog)}
        (told,) = await self._pool.run(job, origin=wanted.origin)
        digest = await asyncio.to_thread(_digest, cog)
        record = Record(
            source=redacted(wanted.href.partition("?")[0]),
            source_identity=identity,
            source_sha256=saved.sha256,
            options=self._digest,
            cog_etag="",
            cog_bytes=cog.stat().st_size,
            cog_sha256=digest,
            told=told,
        )
        self._item(wanted, record, place)  # what makes no item is not uploaded either
        etag = await self._destination.upload(cog, digest, place)
        return replace(record, cog_etag=etag)

    def _item(self, wanted: Asked, record: Record, place: S3Location) -> dict[str, Any]:
        href = self._destination.href(place)
        return made_item(wanted, record.told, href=href, size_bytes=record.cog_bytes, sha256=record.cog_sha256)

    @asynccontextmanager
    async def _folder(self) -> AsyncIterator[Path]:
        """Lend a folder for one job's files, and remove it with whatever is in it."""
        try:
            folder = self._pool.new_folder()
        except OSError as error:
            raise Transient(f"no temporary folder can be made (TMPDIR): {error}", error_class="no_space") from error
        try:
            yield folder
        finally:
            await asyncio.shield(asyncio.to_thread(_remove, folder))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _remove(folder: Path) -> None:
    """Remove a folder; a child that was just killed may still be at work in it."""
    for _ in range(_REMOVALS):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(_REMOVE_AGAIN_S)
