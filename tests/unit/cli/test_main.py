"""Errors, exit codes and what every command has in common."""

from __future__ import annotations

import subprocess
import sys

import pytest

from stacworker import __version__
from tests.unit.cli.conftest import Ran


def test_version(run):
    """`--version` prints the version alone."""
    assert run("--version") == Ran(0, f"stacworker {__version__}\n", "")


def test_no_arguments_show_the_help(run):
    """Without a command the help is shown, as wrong usage."""
    ran = run()

    assert ran.code == 2
    assert "Usage: stacworker" in ran.out
    assert ran.err == ""


@pytest.mark.parametrize(
    "command",
    ["run", "demo", "check", "send", "migrate", "collections load", "healthcheck", "config show", "config schema"],
)
def test_every_command_has_help(run, command):
    """Each command tells what it does, with an example."""
    ran = run(*command.split(), "--help")

    assert ran.code == 0
    assert f"Usage: stacworker {command}" in ran.out
    assert "Example" in ran.out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["fly"], "No such command 'fly' (see `stacworker --help`)"),
        (["send"], "Missing argument 'QUEUE_URL' (see `stacworker send --help`)"),
        (["run", "--fast"], "No such option: --fast (see `stacworker run --help`)"),
    ],
)
def test_wrong_usage_is_one_line(run, arguments, line):
    """Wrong usage exits with 2 and says in one line where the help is."""
    assert run(*arguments) == Ran(2, "", f"stacworker: {line}\n")


def test_wrong_settings_are_a_line_each(run, tmp_path):
    """Each mistake in the settings is one line on standard error, exit code 2."""
    file = tmp_path / "stacworker.yaml"
    file.write_text("http: {prot: 1}\nlog: {level: loud}\n")

    assert run("run", "--config", file) == Ran(
        2,
        "",
        "stacworker: http.prot: unknown key; did you mean port?\n"
        "stacworker: log.level: input should be 'debug', 'info', 'warning' or 'error'\n",
    )


def test_run_needs_a_consumer(run):
    """A worker without queues does not start."""
    assert run("run") == Ran(
        2,
        "",
        "stacworker: no consumers: name at least one queue under `consumers` (see `stacworker config example`)\n",
    )


@pytest.mark.parametrize("arguments", [["--debug", "run"], ["run", "--debug"]])
def test_debug_shows_the_traceback(run, arguments):
    """`--debug` may stand anywhere and shows where an error comes from."""
    ran = run(*arguments)

    assert ran.code == 2
    assert ran.err.startswith("Traceback (most recent call last):\n")
    assert ran.err.splitlines()[-1].startswith("stacworker: no consumers")


def test_unexpected_errors_are_one_line(run, monkeypatch):
    """What nobody expected is one line too, with the way to its traceback."""

    def broken(*_: object, **__: object) -> str:
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr("stacworker.ops.healthcheck.healthcheck", broken)

    assert run("healthcheck") == Ran(1, "", "stacworker: ZeroDivisionError: division by zero (--debug shows where)\n")


def test_help_and_probes_load_nothing_heavy():
    """`--help` and `healthcheck` load no AWS, database or settings modules, so that they start at once."""
    script = (
        "import sys; from stacworker.cli import main; main(['--help']); main(['healthcheck'])\n"
        "print([name for name in ('asyncpg', 'botocore', 'pydantic_settings', 'fastapi', 'psycopg') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"


def test_a_reader_that_goes_away_ends_it_quietly():
    """`stacworker config schema | head` leaves no traceback."""
    command = f"{sys.executable} -m stacworker config schema | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)

    assert (done.stdout, done.stderr) == ("{", "")
