"""The command line. Each command calls one function and prints what it returns."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from stacworker.errors import ConfigError, StacworkerError
from stacworker.redaction import redacted

FAILED, WRONG_USAGE = 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 a wrong setting or wrong usage.

    Errors go to standard error, one line a problem. `--debug`, anywhere before a `--`, shows the
    traceback as well.
    """
    arguments, debug = _without_debug(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output has gone (`… | head`); Python would complain again at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:  # noqa: BLE001 - the last stop: every error becomes lines and an exit code
        if debug:
            sys.stderr.write(redacted("".join(traceback.format_exception(error))))
        lines, code = _told(error)
        sys.stderr.writelines(f"stacworker: {line}\n" for line in lines)
    return int(code or 0)


def _run(arguments: list[str]) -> int | None:
    if arguments in (["healthcheck"], ["healthcheck", "--ready"]):
        # A probe comes every few seconds, and typer takes four times as long as the rest of it.
        from stacworker.ops.healthcheck import healthcheck  # noqa: PLC0415

        print(healthcheck(os.environ, ready=len(arguments) > 1))  # noqa: T201
        return 0
    from typer.main import get_command  # noqa: PLC0415 - for the same reason

    from stacworker.cli.commands import app  # noqa: PLC0415

    code: int | None = get_command(app)(args=arguments, prog_name="stacworker", standalone_mode=False)
    return code


def _without_debug(argv: Sequence[str]) -> tuple[list[str], bool]:
    own = list(argv[: argv.index("--")]) if "--" in argv else list(argv)
    return [word for word in own if word != "--debug"] + list(argv[len(own) :]), "--debug" in own


def _told(error: Exception) -> tuple[list[str], int]:
    """Return the lines that tell of an error, and the exit code."""
    if isinstance(error, ExceptionGroup):
        told = [_told(each) for each in error.exceptions]
        return [line for lines, _ in told for line in lines], max(code for _, code in told)
    if isinstance(error, ConfigError):
        return list(error.problems), WRONG_USAGE
    if isinstance(error, StacworkerError):
        return [" ".join(error.reason.split())], FAILED
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # typer's own, wherever it keeps them
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "stacworker"
        text = " ".join(str(error.format_message()).split()).rstrip(".")
        # Without a text the help was shown in its place.
        return [f"{text} (see `{command} --help`)"] if text else [], int(error.exit_code)
    text = redacted(" ".join(str(error).split()))
    kind = type(error).__name__
    return [f"{kind}: {text}" if isinstance(error, OSError) else f"{kind}: {text} (--debug shows where)"], FAILED
