"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="Settings in YAML (default: what STACWORKER_CONFIG names)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for pipes.")]
PipelinesOption = Annotated[
    Path | None,
    typer.Option("--pipelines", metavar="FOLDER", help="The folder that holds pipelines (default: pipelines.folder)."),
]


def files_or_stdin(paths: list[Path] | None) -> list[Path] | None:
    """Refuse files that cannot be there, before anything begins; `-` is standard input.

    In place of typer's own checks, which look for a file named so (as of 0.29, with `allow_dash`).
    """
    for path in paths or []:
        if path == Path("-"):
            continue
        if not path.exists():
            raise typer.BadParameter(f"file '{path}' does not exist.")
        if path.is_dir():
            raise typer.BadParameter(f"file '{path}' is a directory.")
    return paths
