"""`stacworker collections`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from stacworker.cli.options import ConfigOption, JsonOption, files_or_stdin
from stacworker.cli.output import say, say_json

app = typer.Typer(help="The collections of the catalogue.", no_args_is_help=True)


@app.callback()
def collections() -> None:
    """Keep `load` a command of a group, which grows."""


@app.command(epilog="Example: stacworker collections load --config stacworker.yaml collections/*.json")
def load(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE",
            callback=files_or_stdin,
            help="A collection, an array of them, or a STAC API's answer to /collections; .ndjson: one a line. "
            "`-`: standard input.",
        ),
    ],
    *,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Create or replace collections; all are checked before the first is written."""
    from stacworker.config import load_settings  # noqa: PLC0415 - commands import what they need
    from stacworker.ops.collections import read_collections  # noqa: PLC0415

    settings, documents = load_settings(config), read_collections(files)
    from stacworker.cli.opening import opened  # noqa: PLC0415
    from stacworker.load.prepare import prepare_collection  # noqa: PLC0415
    from stacworker.ops.collections import LoadedCollection, load_collections  # noqa: PLC0415

    async def run() -> list[LoadedCollection]:
        async with opened(settings) as parts:
            database = await parts.database()
            catalogue = await parts.catalogue(database)
            loaded = []
            async for done in load_collections(
                documents, prepare=prepare_collection, put=catalogue.put_collection, database=database
            ):
                loaded.append(done)
                if not json:
                    say(f"{done.id}: {'created' if done.created else 'updated'}")
            return loaded

    loaded = asyncio.run(run())
    if json:
        say_json([{"id": done.id, "created": done.created, "origin": done.origin} for done in loaded])
