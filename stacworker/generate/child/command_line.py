"""An ItemRequest's arguments and options → what follows the words of a click command.

StactoolsItemGenerator ran `stac GROUP create-item ARGS… --OPTION VALUE… OUT.json`; such requests work
as they are. What it could not do works as well, because the command's parameters are known here: flags,
repeated options, options with several values, and destinations that are options, directories, or not
there at all. What a message may not do is name files of this machine, or where else to write.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from .local_paths import is_allowed

_DESTINATION = re.compile(r"(^|_)(dst|dest|destination|out|outdir|outfile|output)(_|$)")
_FOLDER = re.compile(r"dir|folder")
_MAX_COUNT = 100


def arguments(
    command: click.Command,
    words: str,
    args: list[Any],
    options: dict[str, Any],
    out: Path,
    *,
    local_paths: Sequence[str] = (),
) -> list[str]:
    """Return the command's arguments, with a destination in the folder `out` where it wants one.

    Raises click.UsageError when an option's value does not fit the option, one is not known, or an argument
    names a file of this machine outside of the folders `local_paths`.
    """
    ctx = click.Context(command, info_name=f"stac {words}")
    given = [str(arg) for arg in args]
    for key, value in options.items():
        given += _option(command, ctx, key, value)
    values = command.make_parser(ctx).parse_args(args=list(given))[0]
    _check_places(command, ctx, values, local_paths)
    return given + _destination(command, values, out)


def _check_places(
    command: click.Command, ctx: click.Context, values: dict[str, Any], local_paths: Sequence[str]
) -> None:
    """Raise when the request names a file that is none of its business."""
    for param in command.params:
        for text in _texts(values.get(str(param.name))):
            if not is_allowed(text, local_paths):
                raise click.UsageError(
                    f"{param.name}: {text[:200]!r} is on the worker's own machine, where requests may only name files "
                    f"in the generator's local_paths ({', '.join(local_paths) or 'none'})",
                    ctx=ctx,
                )
            if _is_destination(param) and "://" in text:
                raise click.UsageError(f"{param.name}: a request does not say where items are written", ctx=ctx)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)


def _option(command: click.Command, ctx: click.Context, key: str, value: Any) -> list[str]:
    """Return one option with its value or values.

    Flags: true, null and "" set one, false sets its opposite where it has one. Others: a list repeats
    the option, or gives its several values; null leaves it out.
    """
    names = [key] if key.startswith("-") else [f"--{key}", f"--{key.replace('_', '-')}", f"--{key.replace('-', '_')}"]
    names += [f"-{key}"] if len(key) == 1 else []
    option = next(
        (
            param
            for name in names
            for param in command.params
            if isinstance(param, click.Option) and name in (*param.opts, *param.secondary_opts)
        ),
        None,
    )
    if option is None:
        raise click.NoSuchOption(names[0], ctx=ctx)
    name = next(name for name in names if name in (*option.opts, *option.secondary_opts))
    if option.is_flag or option.count:
        return _flag(option, ctx, name, value)
    if value is None:
        return []
    rows = value if option.multiple and isinstance(value, list) else [value]
    result = []
    for row in rows:
        cells = row if isinstance(row, list) else [row]
        if len(cells) != option.nargs:
            raise click.BadOptionUsage(name, f"{name} takes {option.nargs} value(s), not {len(cells)}", ctx=ctx)
        result += [name, *(_text(cell, name, ctx) for cell in cells)]
    return result


def _flag(option: click.Option, ctx: click.Context, name: str, value: Any) -> list[str]:
    if value in (True, None, "", "true", "True"):
        return [name]
    if value in (False, "false", "False"):
        return option.secondary_opts[-1:] if name in option.opts else option.opts[-1:]
    if option.count and isinstance(value, int) and value <= _MAX_COUNT:
        return [name] * value
    raise click.BadOptionUsage(name, f"{name} is a flag: expected true or false, not {value!r}", ctx=ctx)


def _text(value: Any, name: str, ctx: click.Context) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise click.BadOptionUsage(name, f"{name} cannot have the value {value!r}", ctx=ctx)


def _destination(command: click.Command, values: dict[str, Any], out: Path) -> list[str]:
    """Return what tells the command where to write: a last positional argument, an option, or nothing."""
    positional = [param for param in command.params if isinstance(param, click.Argument)]
    missing = [param for param in positional if not _is_given(values.get(str(param.name)))]
    if any(param.nargs < 0 for param in positional[:-1]):  # it takes all there are, so the last is always ours
        missing = positional[-1:]
    if len(missing) == 1 and (_is_destination(missing[0]) or (missing[0].required and len(positional) > 1)):
        return [_place(missing[0], out)]
    for param in command.params:
        wanted = isinstance(param, click.Option) and param.required and _is_destination(param)
        if wanted and not _is_given(values.get(str(param.name))):
            return [param.opts[-1], _place(param, out)]
    return []


def _is_given(value: Any) -> bool:
    """Return whether the parser found a value (its mark for "none" differs between versions of click)."""
    return isinstance(value, str) or (isinstance(value, list | tuple) and bool(value))


def _is_destination(param: click.Parameter) -> bool:
    return bool(_DESTINATION.search(str(param.name).lower()))


def _place(param: click.Parameter, out: Path) -> str:
    path = param.type if isinstance(param.type, click.Path) else None
    if _FOLDER.search(str(param.name).lower()) or (path is not None and not path.file_okay):
        return str(out)
    if path is not None and path.exists:
        if path.dir_okay:
            return str(out)
        (out / "item.json").touch()
    return str(out / "item.json")
