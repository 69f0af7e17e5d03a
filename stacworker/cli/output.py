"""What commands print: lines for people, JSON for pipes."""

from __future__ import annotations

import json
import sys
from typing import Any

import typer

_COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}


def say(text: str) -> None:
    """Print a line on standard output."""
    typer.echo(text)


def note(text: str) -> None:
    """Print a line on standard error, beside what may be piped."""
    typer.echo(text, err=True)


def say_json(value: Any) -> None:
    """Print a value as JSON on standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def say_level(level: str, text: str) -> None:
    """Print a line that begins with `ok`, `warning` or `error`, in colour on a terminal."""
    typer.echo(
        f"{typer.style(f'{level:<7}', fg=_COLOURS[level])}  {text}", color=None if sys.stdout.isatty() else False
    )
