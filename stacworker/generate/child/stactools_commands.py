"""The target that runs `create-item` commands of stactools packages, one after another in a warm process.

stactools has no list of its commands: its own command line imports every module of the `stactools`
namespace, calls each one's `register_plugin(registry)`, and has the functions registered there add
commands to a click group. Here that is done for the modules of the allowed packages only, with a group
for each package, so that a request can reach nothing else.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import json
import pkgutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import pystac

from .command_line import arguments

_CREATE_ITEM = "create-item"
_SHOWN_CHARS = 300


class UsageError(Exception):
    """The request does not fit the command."""

    error_class = "generator_usage"


class NoItemsError(Exception):
    """The command ended well and made nothing."""

    error_class = "generator_no_items"


class CommandError(Exception):
    """The command ended with an error message of its own."""

    error_class = "generator_error"


class Commands:
    """The commands of some packages; called with one request, returns its items.

    A request is `{"package": canonical name or null, "group": str or null, "args": [str],
    "options": {str: value}}`. `command` is the words of the command for requests that name no group; it
    can be left out where there is only one `create-item`; `local_paths` are the folders on this machine whose
    files a request may name. Raises LookupError when it does not exist, and
    whatever the packages raise when they are imported. A package that is not installed has the version
    null in `about`.
    """

    def __init__(self, packages: list[str], command: str | None = None, local_paths: Sequence[str] = ()) -> None:
        _import_stactools_alone()
        self._local_paths = local_paths
        self._command = command
        self._roots = {package: click.Group("stac") for package in packages}
        self.about: dict[str, Any] = {package: _register(package, root) for package, root in self._roots.items()}
        if command is not None and not any(_walk(root, command) for root in self._roots.values()):
            raise LookupError(f"there is no command {command!r}; there are: {self._names(packages)}")
        self._saved: dict[str, dict[str, Any]] = {}
        pystac.Item.save_object = self._keeper()  # type: ignore[method-assign]  # nothing else runs here

    def __call__(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the items of one request; the working directory is the place for files."""
        root, words = self._find(request["package"], request["group"])
        command = _walk(root, words)
        if command is None:
            raise UsageError(f"there is no command {words!r}")
        out = Path.cwd() / "out"
        out.mkdir()
        self._saved.clear()
        printed = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
        try:
            args = arguments(command, words, request["args"], request["options"], out, local_paths=self._local_paths)
            with contextlib.redirect_stdout(printed):
                root.main(args=[*words.split(), *args], standalone_mode=False, prog_name="stac")
        except click.UsageError as error:
            usage = error.ctx.get_usage() if error.ctx else ""
            raise UsageError(f"stac {words}: {error.format_message()} {' '.join(usage.split())}") from None
        except click.ClickException as error:
            raise CommandError(f"stac {words}: {error.format_message()}") from error
        printed.seek(0)
        text = printed.read()
        items = list(self._saved.values()) or _in_files(out) or _in_text(text)
        if not items:
            raise NoItemsError(
                f"stac {words} saved no item, wrote none to its destination and printed none"
                + (f"; it printed: {text.strip()[-_SHOWN_CHARS:]}" if text.strip() else "")
            )
        return [_without_local_self(item, str(out)) for item in items]

    def _find(self, package: str | None, group: str | None) -> tuple[click.Group, str]:
        """Return the group that holds the wanted command, and the command's words."""
        packages = [package] if package is not None else list(self._roots)
        wanted = f"{group} {_CREATE_ITEM}" if group else self._command
        found = [
            (self._roots[name], words)
            for name in packages
            for words in ([wanted] if wanted else self.about[name]["commands"])
            if _walk(self._roots[name], words)
        ]
        if len(found) == 1:
            return found[0]
        if wanted is None:
            raise UsageError(
                "the request names no group and the command cannot be guessed: send group_name, or set the "
                f"generator's command to one of: {self._names(packages)}"
            )
        place = ", ".join(packages)
        raise UsageError(f"there is no command {wanted!r} in {place}; there are: {self._names(packages)}")

    def _names(self, packages: list[str]) -> str:
        return ", ".join(words for name in packages for words in self.about[name]["commands"]) or "none"

    def _keeper(self) -> Callable[..., None]:
        def save_object(
            item: pystac.Item,
            include_self_link: bool = True,  # noqa: FBT001, FBT002 - pystac's signature
            dest_href: str | None = None,  # noqa: ARG001 - as above
            stac_io: pystac.StacIO | None = None,  # noqa: ARG001 - as above
        ) -> None:
            self._saved[item.id] = item.to_dict(include_self_link=include_self_link)

        return save_object


def _import_stactools_alone() -> None:
    """Import stactools.cli, which some packages import, without all the namespace coming along."""
    iter_modules = pkgutil.iter_modules
    pkgutil.iter_modules = lambda *_, **__: iter(())
    try:
        importlib.import_module("stactools.cli")
    except ModuleNotFoundError:
        pass  # the packages' own imports tell, if they need it
    finally:
        pkgutil.iter_modules = iter_modules


def _register(package: str, root: click.Group) -> dict[str, Any]:
    """Add a package's commands to `root`; return its version and the words of its create-item commands."""
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return {"version": None, "commands": []}
    registry = _Registry(root)
    for module in _modules(package, distribution):
        register_plugin = getattr(importlib.import_module(module), "register_plugin", None)
        if register_plugin is not None:
            register_plugin(registry)
    groups = [name for name, command in root.commands.items() if isinstance(command, click.Group)]
    words = [_CREATE_ITEM, *(f"{name} {_CREATE_ITEM}" for name in groups)]
    return {"version": distribution.version, "commands": [each for each in words if _walk(root, each)]}


class _Registry:
    """What `register_plugin` of a stactools package is given; see stactools.cli.registry."""

    def __init__(self, root: click.Group) -> None:
        self._root = root

    def register_subcommand(self, create_command: Callable[[click.Group], click.Command]) -> None:
        create_command(self._root)


def _modules(package: str, distribution: importlib.metadata.Distribution) -> list[str]:
    """Return the modules right under `stactools` that a distribution installed.

    An editable install lists no such files: its module is guessed from its name.
    """
    tops = {file.parts[1].removesuffix(".py") for file in distribution.files or () if file.parts[0] == "stactools"}
    names = sorted(top for top in tops if top.isidentifier() and top != "__pycache__")
    return [f"stactools.{name}" for name in names or [package.removeprefix("stactools-").replace("-", "_")]]


def _walk(root: click.Group, words: str) -> click.Command | None:
    command: click.Command | None = root
    for word in words.split():
        command = command.commands.get(word) if isinstance(command, click.Group) else None
    return command


def _in_files(folder: Path) -> list[dict[str, Any]]:
    texts = [path.read_text("utf-8", "replace") for path in sorted(folder.rglob("*")) if path.is_file()]
    return [item for text in texts for item in _in_text(text)]


def _in_text(text: str) -> list[dict[str, Any]]:
    """Return the items in a JSON object, which other text may precede."""
    try:
        document = json.JSONDecoder().raw_decode(text[text.index("{") :])[0]
    except ValueError:
        return []
    found = document.get("features", []) if document.get("type") == "FeatureCollection" else [document]
    return [item for item in found if isinstance(item, dict) and item.get("type") == "Feature"]


def _without_local_self(item: dict[str, Any], folder: str) -> dict[str, Any]:
    """Drop a self link into the folder that is about to be emptied."""
    links = [
        link
        for link in item.get("links", [])
        if not (link.get("rel") == "self" and str(link.get("href")).startswith(folder))
    ]
    return {**item, "links": links}
