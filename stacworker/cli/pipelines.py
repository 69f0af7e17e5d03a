"""`stacworker pipelines`: datasets as folders."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from stacworker.cli.options import ConfigOption, JsonOption, PipelinesOption
from stacworker.cli.output import note, say, say_json

app = typer.Typer(help="Datasets as folders, each with a pipeline.yaml.", no_args_is_help=True)

IdsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="ID", help="Only these pipelines (default: all).", show_default=False)
]


@app.command("list", epilog="Example: stacworker pipelines list --pipelines pipelines")
def list_(*, config: ConfigOption = None, pipelines: PipelinesOption = None, json: JsonOption = False) -> int:
    """List the pipelines, and what is wrong with those that cannot run. Exit code 1 when there is one."""
    from stacworker.cli.pipeline_work import described, read  # noqa: PLC0415 - commands import what they need

    rows = [described(each) for each in read(config, pipelines)]
    if json:
        say_json(rows)
    else:
        _table(rows)
    return 1 if any(row["problems"] for row in rows) else 0


@app.command(
    epilog="Example: stacworker pipelines new sentinel-1 --from stactools:stactools-sentinel1\n\n"
    "Example: stacworker pipelines new dem --from raster"
)
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The pipeline's id, and its folder's name.")],
    source: Annotated[
        str, typer.Option("--from", metavar="KIND", help="stactools:PACKAGE, function or raster.")
    ] = "function",
    *,
    pipelines: Annotated[
        Path, typer.Option("--pipelines", metavar="FOLDER", help="The folder that holds pipelines.")
    ] = Path("pipelines"),
    json: JsonOption = False,
) -> None:
    """Write a new pipeline's folder, with a test that passes."""
    from stacworker.pipelines.new import new_pipeline  # noqa: PLC0415 - as above

    made = new_pipeline(pipelines, name, source)
    if json:
        say_json({"folder": str(made.folder), "files": list(made.files)})
        return
    for file in made.files:
        say(str(made.folder / file))
    note(f"next: stacworker pipelines test {name} --pipelines {pipelines}")


@app.command(epilog="Example: stacworker pipelines convert stactools_pipelines/pipelines/sentinel1")
def convert(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", exists=True, file_okay=False, help="A folder of stactools-pipelines.")
    ],
    *,
    pipelines: Annotated[
        Path, typer.Option("--pipelines", metavar="FOLDER", help="The folder that holds pipelines.")
    ] = Path("pipelines"),
    json: JsonOption = False,
) -> None:
    """Make a pipeline from a folder of stactools-pipelines: its code as it is, its config.yaml translated."""
    from stacworker.pipelines.new import convert_pipeline  # noqa: PLC0415 - as above

    made = convert_pipeline(folder, pipelines)
    if json:
        say_json({"folder": str(made.folder), "files": list(made.files), "left": list(made.left)})
        return
    for file in made.files:
        say(str(made.folder / file))
    for each in made.left:
        note(f"left to do: {each}")


@app.command(epilog="Example, in a Dockerfile: RUN stacworker pipelines install --pipelines /pipelines")
def install(
    ids: IdsArgument = None,
    *,
    config: ConfigOption = None,
    pipelines: PipelinesOption = None,
    json: JsonOption = False,
) -> None:
    """Make the environments of all generators, those of pipelines and of the settings, where they are not there."""
    from stacworker.cli.pipeline_work import install as make  # noqa: PLC0415 - as above

    rows = asyncio.run(make(config, pipelines, ids))
    if json:
        say_json(rows)
        return
    for row in rows:
        place = f"{row['environment']} ({row['packages']} packages)" if row["environment"] else "stacworker's own"
        say(f"{row['generator']}: {place}")


@app.command(epilog="Example: stacworker pipelines lock sentinel-1")
def lock(
    ids: IdsArgument = None,
    *,
    config: ConfigOption = None,
    pipelines: PipelinesOption = None,
) -> None:
    """Pin everything that pipelines need, with hashes, in requirements.lock in their folders."""
    from stacworker.cli.pipeline_work import lock as pin  # noqa: PLC0415 - as above

    for path in asyncio.run(pin(config, pipelines, ids)):
        say(str(path))


@app.command("test", epilog="Example: stacworker pipelines test sentinel-1")
def try_(
    ids: IdsArgument = None,
    *,
    config: ConfigOption = None,
    pipelines: PipelinesOption = None,
) -> int:
    """Run the tests in the pipelines' folders with pytest. Exit code 1 when one fails or a pipeline has none."""
    from stacworker.cli.pipeline_work import run_tests  # noqa: PLC0415 - as above

    return run_tests(config, pipelines, ids)


def _table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    for title in ("pipeline", "triggers", "generator", "collection", "output"):
        table.add_column(title, overflow="fold")
    for row in rows:
        if row["problems"]:
            continue
        state = "" if row["enabled"] else " (disabled)"
        table.add_row(
            row["id"] + state, ", ".join(row["triggers"]), row["generator"], row["collection"] or "", row["output"]
        )
    Console().print(table)
    for row in rows:
        for problem in row["problems"]:
            note(f"broken: {problem}")
