"""`stacworker config`: the settings in force, their schema, a commented example."""

from __future__ import annotations

import re
from typing import Any

import typer

from stacworker.cli.options import ConfigOption, JsonOption
from stacworker.cli.output import say, say_json
from stacworker.redaction import redacted

_SECRET = re.compile(
    r"(pass(word|wd|phrase)?|pwd|secret|token|bearer|cookie|credentials?|auth|authorization|dsn|conninfo|"
    r"connection_string|(api|access|secret|private|account)_?key)$",
    re.IGNORECASE,
)
_MASK = "**********"

app = typer.Typer(help="The settings in force, their schema, a commented example.", no_args_is_help=True)


@app.command(epilog="Example: STACWORKER_HTTP__PORT=9000 stacworker config show --config stacworker.yaml")
def show(*, config: ConfigOption = None, json: JsonOption = False) -> None:
    """Show the settings in force: the environment over the file over the defaults, secrets masked."""
    from stacworker.config import load_settings  # noqa: PLC0415 - commands import what they need

    values = masked(load_settings(config).model_dump(mode="json"))
    if json:
        say_json(values)
        return
    import yaml  # noqa: PLC0415

    say(yaml.safe_dump(values, sort_keys=False, allow_unicode=True).rstrip())


@app.command(epilog="Example: stacworker config schema > stacworker.schema.json")
def schema() -> None:
    """Print the JSON schema of the settings file, for editors."""
    from stacworker.settings import Settings  # noqa: PLC0415

    say_json(Settings.model_json_schema())


@app.command(epilog="Example: stacworker config example > stacworker.yaml")
def example() -> None:
    """Print an example file that tells about every setting and its default."""
    from stacworker.cli.example import example as text  # noqa: PLC0415

    say(text().rstrip("\n"))


def masked(value: Any, *, secret: bool = False) -> Any:
    """Return settings with everything masked whose key sounds like a secret, at any depth, and URLs' credentials.

    pydantic masks what the settings declare secret; `options` of plugins may hold more.
    """
    if isinstance(value, dict):
        return {key: masked(part, secret=secret or bool(_SECRET.search(str(key)))) for key, part in value.items()}
    if isinstance(value, list):
        return [masked(part, secret=secret) for part in value]
    if secret and value is not None and not isinstance(value, bool):
        return _MASK
    return redacted(value) if isinstance(value, str) else value
