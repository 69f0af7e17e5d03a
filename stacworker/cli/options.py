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
