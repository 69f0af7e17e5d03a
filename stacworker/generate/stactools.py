"""stactools packages as generator: their own `create-item` commands, in warm child processes."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from stacworker.api import Request
from stacworker.errors import ConfigError, Permanent
from stacworker.generate.environment import scrubbed
from stacworker.generate.function import in_collection
from stacworker.generate.pool import Pool
from stacworker.generate.recipe import Limits, Recipe, Target
from stacworker.metrics import Metrics

_TARGET = "stacworker_child.stactools_commands:Commands"
_NAME_CHARS = 200


class StactoolsGenerator:
    """Makes items with the packages that settings allow, and nothing else.

    Takes the ItemRequests of StactoolsItemGenerator (`package_name`, `group_name`, `create_item_args`,
    `create_item_options`), in which options may also be flags or lists (`child/command_line.py`), and
    requests with an `href`, which becomes the only argument of `command` (such as "sentinel2
    create-item"; it may be left out when the packages have only one create-item).

    `packages` are requirements; entering raises ConfigError for each that is not installed as required.
    A request may name a version too; it is refused when that is not the one installed. Its arguments may name
    files on this machine only in the folders `local_paths`.
    """

    def __init__(
        self,
        *,
        name: str,
        packages: Sequence[str],
        limits: Limits,
        metrics: Metrics,
        environ: Mapping[str, str],
        command: str | None = None,
        local_paths: Sequence[str] = (),
        env: Sequence[str] = (),
        path: Sequence[str] = (),
        interpreter: str = sys.executable,
    ) -> None:
        self._name = name
        self._required = dict(_requirement(name, text) for text in packages)
        self._command = command
        self._versions: dict[str, str] = {}
        options = {"packages": list(self._required), "command": command, "local_paths": list(local_paths)}
        recipe = Recipe(
            name=name,
            target=Target(_TARGET, options, factory=True),
            limits=limits,
            env=scrubbed(environ, also=env),
            path=tuple(path),
            interpreter=interpreter,
        )
        self._interpreter = interpreter
        self._pool = Pool(recipe, metrics)

    @property
    def packages(self) -> tuple[str, ...]:
        """The canonical names of the packages that requests may name."""
        return tuple(self._required)

    @property
    def versions(self) -> Mapping[str, str]:
        """The versions of these packages that are installed for it."""
        return self._versions

    async def __aenter__(self) -> Self:
        await self._pool.__aenter__()
        try:
            self._check_versions(await self._pool.about())
        except BaseException:
            await self._pool.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pool.__aexit__(kind, error, trace)

    async def generate(self, request: Request) -> Sequence[dict[str, Any]]:
        """Return the items of one request, in its `collection_id` where it names one.

        Raises Permanent or Transient; Unavailable when no child process can be started.
        """
        items = await self._pool.run(self._job(request), origin=request.origin)
        return in_collection(items, request.collection_id)

    def stop_starting(self) -> None:
        """Start no further job (the drain has begun); what waits fails with Unavailable."""
        self._pool.stop_starting()

    async def ping(self) -> None:
        """Raise Unavailable when no child process is there and none can be started."""
        await self._pool.ping()

    def _check_versions(self, about: Mapping[str, Any]) -> None:
        problems = []
        for package, required in self._required.items():
            version = about[package]["version"]
            text = f"generators.{self._name}.packages: {required}"
            install = f"pip install '{required}' (for {self._interpreter})"
            if version is None:
                problems.append(f"{text} is not installed: {install}")
            elif not required.specifier.contains(version, prereleases=True):
                problems.append(f"{text} is not met, {version} is installed: {install}")
            elif not about[package]["commands"] and self._command is None:
                problems.append(f"{text} has no create-item command: set generators.{self._name}.command")
            self._versions[package] = version
        if problems:
            raise ConfigError(*problems)

    def _job(self, request: Request) -> dict[str, Any]:
        """Return what the child is to do; raise Permanent where the request is not one for these packages."""
        body = request.body
        named = body.get("package_name")
        package = None if named is None else self._allowed(named, request.origin)
        args = body.get("create_item_args")
        if args is None and isinstance(body.get("href"), str):
            args = [body["href"]]
        options = {} if body.get("create_item_options") is None else body["create_item_options"]
        group = body.get("group_name") or None
        if not isinstance(args, list) or not all(isinstance(arg, str | int | float) for arg in args):
            raise _unusable(request.origin, "create_item_args must be a list of texts, or href a text")
        if not isinstance(options, dict):
            raise _unusable(request.origin, "create_item_options must be an object of options and their values")
        if group is not None and (not isinstance(group, str) or package is None):
            raise _unusable(request.origin, "group_name must be a text, beside package_name")
        return {"package": package, "group": group, "args": args, "options": options}

    def _allowed(self, package_name: Any, origin: str) -> str:
        asked = requested_package(package_name, origin)
        package = canonicalize_name(asked.name)
        if package not in self._required:
            allowed = ", ".join(self._required)
            raise Permanent(
                f"{origin}: package {package} is not allowed; allowed: {allowed} (generators.{self._name}.packages)",
                error_class="package_not_allowed",
            )
        version = self._versions[package]
        if not asked.specifier.contains(version, prereleases=True):
            raise Permanent(
                f"{origin}: asks for {asked}, installed is {package} {version}", error_class="package_not_allowed"
            )
        return package


def requested_package(package_name: Any, origin: str) -> Requirement:
    """Read the `package_name` of a request: a package's name, perhaps with a version.

    Raises Permanent when it is anything else; an address to install from is refused like that.
    """
    try:
        # Longer than any name is: what takes seconds to read, or nests markers deeper than the parser goes.
        asked = Requirement(package_name) if len(package_name) <= _NAME_CHARS else None
    except (InvalidRequirement, TypeError):
        asked = None
    if asked is None or asked.url is not None:
        raise Permanent(
            f"{origin}: package_name {str(package_name)[:100]!r} cannot be read; expected a package's name, such as "
            "stactools-naip or stactools-naip==0.5.0",
            error_class="package_not_allowed",
        )
    return asked


def _requirement(generator: str, text: str) -> tuple[str, Requirement]:
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise ConfigError(f"generators.{generator}.packages: {text!r}: {error}") from error
    if requirement.url is not None:
        raise ConfigError(f"generators.{generator}.packages: {text!r}: expected name and version, not an address")
    return canonicalize_name(requirement.name), requirement


def _unusable(origin: str, what: str) -> Permanent:
    return Permanent(
        f"{origin}: this is no request for a stactools package: {what}; expected an ItemRequest (package_name, "
        "group_name, create_item_args, create_item_options), or an href",
        error_class="generator_usage",
    )
