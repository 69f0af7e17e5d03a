"""Load collections from files: all are checked before the first is written."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from stacworker.api import Document, Version
from stacworker.database import Database
from stacworker.errors import ConfigError, Permanent

STDIN = Path("-")
_NDJSON = (".ndjson", ".jsonl")


@dataclass(frozen=True, slots=True)
class LoadedCollection:
    """A collection that is in the catalogue now; `created` says whether it is new there."""

    id: str
    created: bool
    origin: str


def read_collections(paths: Iterable[Path]) -> list[Document]:
    """Read collections from files: one, an array, `{"collections": […]}` as a STAC API answers, or one a line.

    `-` is standard input, with one of the first three. Raises ConfigError with a line for each file or line that
    cannot be read.
    """
    documents: list[Document] = []
    problems: list[str] = []
    for path in paths:
        try:
            data = sys.stdin.buffer.read() if path == STDIN else path.read_bytes()
        except OSError as error:
            problems.append(f"{path}: cannot be read: {error.strerror or error}")
            continue
        lines = data.splitlines() if path.suffix.lower() in _NDJSON else [data]
        for number, line in enumerate(lines, 1):
            origin = f"{path}:{number}" if len(lines) > 1 else str(path)
            if line.strip():
                try:
                    documents += _read(line, origin)
                except ValueError as error:
                    problems.append(f"{origin}: {error}")
    if not problems and not documents:
        problems.append("there are no collections in these files")
    if problems:
        raise ConfigError(*problems)
    return documents


def _read(data: bytes, origin: str) -> Iterable[Document]:
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    if isinstance(found, dict) and isinstance(found.get("collections"), list):
        found = found["collections"]
    version = Version(time.time_ns() // 1_000_000)
    for number, body in enumerate(found if isinstance(found, list) else [found], 1):
        place = f"{origin} collection {number}" if isinstance(found, list) else origin
        if not isinstance(body, dict):
            raise ValueError(  # noqa: TRY004 - what is wrong is the file
                f"expected a collection, a list of them or {{'collections': […]}}, not {str(body)[:60]}"
            )
        yield Document("collection", body, version, place)


async def load_collections(
    documents: Iterable[Document],
    *,
    prepare: Callable[[Document], dict[str, Any]],
    put: Callable[[dict[str, Any]], Awaitable[object]],
    database: Database,
) -> AsyncIterator[LoadedCollection]:
    """Check all collections with `prepare`, then `put` one after the other, yielding each that is in.

    Raises ConfigError with a line for each that is refused, before any is put; Permanent when the database
    refuses one, Unavailable when it is away.
    """
    documents = list(documents)
    prepared = _prepare_all(documents, prepare)
    async with database.transaction("looking for the collections") as connection:
        rows = await connection.fetch(
            "SELECT id FROM pgstac.collections WHERE id = ANY($1::text[])", [body["id"] for body in prepared]
        )
    existing = {row["id"] for row in rows}
    for document, body in zip(documents, prepared, strict=True):
        await put(body)
        yield LoadedCollection(body["id"], body["id"] not in existing, document.origin)
        existing.add(body["id"])


def _prepare_all(documents: Iterable[Document], prepare: Callable[[Document], dict[str, Any]]) -> list[dict[str, Any]]:
    prepared, problems = [], []
    for document in documents:
        try:
            prepared.append(prepare(document))
        except Permanent as error:
            named = document.origin in error.reason
            problems.append(error.reason if named else f"{document.origin}: {error.reason}")
    if problems:
        raise ConfigError(*problems)
    return prepared
