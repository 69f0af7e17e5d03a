"""The commands and their help. Heavy imports stand inside the commands: `--help` and probes must be quick."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from stacworker import __version__
from stacworker.cli import collections as collections_commands
from stacworker.cli import config as config_commands
from stacworker.cli import pipelines as pipelines_commands
from stacworker.cli.options import ConfigOption, JsonOption, PipelinesOption, files_or_stdin
from stacworker.cli.output import say, say_json

app = typer.Typer(
    help="Keeps STAC catalogues current: polls SQS queues, generates STAC items, loads them in pgstac.",
    epilog="Start with `stacworker demo`, then `stacworker config example`. Exit codes: 0 done, 1 failed, "
    "2 a wrong setting or wrong usage.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer's signature
    if wanted:
        say(f"stacworker {__version__}")
        raise typer.Exit


@app.callback()
def stacworker(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere on the line.")
    ] = False,
) -> None:
    """Keep STAC catalogues current."""


@app.command(epilog="Example: stacworker run --config stacworker.yaml")
def run(config: ConfigOption = None, pipelines: PipelinesOption = None) -> int:
    """Run the worker until SIGTERM or Ctrl-C; a second one exits at once.

    Exit code 0 after a clean drain, 1 when something the worker needs failed, 2 for wrong settings.
    """
    from stacworker.config import load_settings  # noqa: PLC0415 - see the module's docstring

    settings = load_settings(config, pipelines=pipelines)
    from stacworker import app as application  # noqa: PLC0415

    return application.run(settings)


@app.command(epilog="Example: stacworker demo --keep")
def demo(
    *,
    granules: Annotated[int, typer.Option(min=1, max=1500, help="How many rasters to make.")] = 200,
    keep: Annotated[bool, typer.Option("--keep", help="Leave it all running until Ctrl-C, to look around.")] = False,
    endpoint_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="An emulator that runs already, such as LocalStack (default: one of its own)."
        ),
    ] = None,
    json: JsonOption = False,
) -> int:
    """Show the whole job on this machine, with nothing configured: from rasters and messages to a search.

    Starts a throw-away PostgreSQL with pgstac and an embedded AWS, makes rasters, and has the real worker generate
    and load their items with stactools-naip, beside items from a bucket and a few bad messages. Exit code 0 when
    everything is where it belongs, to the item. Needs the extra `demo`: pip install 'stacworker[demo]'.
    """
    from stacworker.demo.run import Options, run_demo  # noqa: PLC0415 - see the module's docstring
    from stacworker.demo.show import Show  # noqa: PLC0415

    result = run_demo(Options(granules, keep=keep, endpoint_url=endpoint_url), Show(stderr=json))
    if json:
        say_json(result.as_json())
    return 1 if result.problems else 0


@app.command(epilog="Example: stacworker check --config stacworker.yaml --json")
def check(*, config: ConfigOption = None, pipelines: PipelinesOption = None, json: JsonOption = False) -> int:
    """Look at everything the settings name: queues, dead letters, database, pgstac, generators.

    Each line is ok, a warning or an error with what to do. Takes no message and changes nothing. Exit code 1 when
    there is an error.
    """
    from stacworker.cli.checking import check_settings, tell  # noqa: PLC0415 - see the module's docstring

    return tell(asyncio.run(check_settings(config, pipelines)), as_json=json)


@app.command(
    epilog="Example: stacworker send https://sqs.us-west-2.amazonaws.com/123456789012/items items.ndjson"
    "\n\nExample: jq -c '.features[]' search.json | stacworker send http://localhost:4566/000000000000/items"
)
def send(
    queue_url: Annotated[str, typer.Argument(metavar="QUEUE_URL", help="The queue's URL.")],
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE",
            callback=files_or_stdin,
            help=".json, .geojson: one message a file; others, and `-` or nothing for standard input: one a line.",
        ),
    ] = None,
    *,
    group_id: Annotated[str | None, typer.Option(metavar="ID", help="Message group, for FIFO queues.")] = None,
    endpoint_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Another endpoint (default: AWS_ENDPOINT_URL, or the queue URL's host)."),
    ] = None,
    region: Annotated[
        str | None, typer.Option(metavar="NAME", help="Region (default: the queue URL's, AWS_REGION).")
    ] = None,
    json: JsonOption = False,
) -> int:
    """Send messages to a queue, in batches; tell what could not be sent. Exit code 0 when all was sent."""
    from stacworker.cli.sending import Target, send_files  # noqa: PLC0415 - see the module's docstring

    target = Target(queue_url, group_id=group_id, endpoint_url=endpoint_url, region=region)
    return send_files(target, files or [Path("-")], as_json=json)


@app.command(epilog="Example: stacworker migrate --pgstac --grant stac_loader --config stacworker.yaml")
def migrate(
    *,
    config: ConfigOption = None,
    pgstac: Annotated[bool, typer.Option("--pgstac", help="Install or upgrade pgstac first.")] = False,
    pgstac_version: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Which pgstac, with --pgstac (default: the newest).")
    ] = None,
    grant: Annotated[
        str | None, typer.Option(metavar="ROLE", help="Make the role that workers log in as a member of pgstac_ingest.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    json: JsonOption = False,
) -> None:
    """Create or upgrade schema `stacworker`; doing it twice changes nothing.

    Needs a role that owns the schemas; for --pgstac and --grant one that may create extensions and roles.
    """
    if pgstac_version and not pgstac:
        raise typer.BadParameter("--pgstac-version goes with --pgstac")
    from stacworker.cli.migrating import migrate as migrate_settings  # noqa: PLC0415 - see the module's docstring
    from stacworker.config import load_settings  # noqa: PLC0415

    settings = load_settings(config)
    migrated = asyncio.run(
        migrate_settings(settings, pgstac=pgstac, pgstac_version=pgstac_version, grant=grant, dry_run=dry_run)
    )
    if json:
        say_json(migrated.as_json())
    else:
        say("\n".join(migrated.lines()))


app.add_typer(collections_commands.app, name="collections")


@app.command(epilog="Example, in a Dockerfile: HEALTHCHECK CMD stacworker healthcheck")
def healthcheck(
    *,
    config: ConfigOption = None,
    host: Annotated[str | None, typer.Option(help="Where the worker listens (default: http.host).")] = None,
    port: Annotated[int | None, typer.Option(help="Its port (default: http.port).", min=1, max=65535)] = None,
    ready: Annotated[bool, typer.Option("--ready", help="Ask /readyz, whether it works, not only /livez.")] = False,
) -> None:
    """Ask the running worker whether it lives. Exit code 0: yes, 1: no."""
    from stacworker.ops.healthcheck import healthcheck as ask  # noqa: PLC0415 - see the module's docstring

    say(ask(os.environ, config, host=host, port=port, ready=ready))


app.add_typer(pipelines_commands.app, name="pipelines")
app.add_typer(config_commands.app, name="config")
