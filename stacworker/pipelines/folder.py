"""Pipelines' folders: found, read and checked, each on its own."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stacworker.config import describe
from stacworker.errors import ConfigError
from stacworker.pipelines.settings import PipelineSettings
from stacworker.settings import GeneratorSettings
from stacworker.yaml_file import read_mapping

FILE = "pipeline.yaml"
LOCK = "requirements.lock"
_MISNAMED = "pipeline.yml"
_NAME_CHARS = 59  # with room for what is added to it
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{_NAME_CHARS - 1}}}")
_MAX_NODES = 50_000
_UNSET, _UNSET_URL = "unset", "https://unset.invalid/unset"
_VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>[A-Za-z_]\w*)(?::-(?P<default>[^}]*))?\})")


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One pipeline, complete: what its file leaves out is filled in from what lies in the folder.

    `collection_source` is the path of a JSON file or a reference `module:function`; None: there is none.
    """

    id: str
    folder: Path
    settings: PipelineSettings
    generator: GeneratorSettings
    inventory: str | None
    collection_source: Path | str | None

    @property
    def collection(self) -> str | None:
        """The id of its collection."""
        return self.settings.collection.id if self.settings.collection else None


@dataclass(frozen=True, slots=True)
class Broken:
    """A folder whose pipeline cannot be run, and why, a line each."""

    id: str
    folder: Path
    problems: tuple[str, ...]
    enabled: bool = True


def read_pipelines(
    folder: Path, *, environ: Mapping[str, str] | None = os.environ, only: Iterable[str] | None = None
) -> list[Pipeline | Broken]:
    """Read every folder in `folder` that has a pipeline.yaml, sorted by name; `only` those with these ids.

    Without an `environ` its variables are taken to be "unset" where they have no default: enough to look at
    pipelines, and to test them.

    Raises ConfigError when the folder itself cannot be read, holds none, or lacks one of `only`.
    """
    try:
        paths = [path for name in (FILE, _MISNAMED) for path in folder.glob(f"*/{name}")]
        folders = sorted({path.parent for path in paths if not path.parent.name.startswith(".")})
        if not folder.is_dir():
            raise ConfigError(f"pipelines: {folder} is no folder")
    except OSError as error:
        raise ConfigError(f"pipelines: {folder} cannot be read: {error.strerror}") from error
    if not folders:
        raise ConfigError(f"pipelines: no folder in {folder} has a {FILE}: make one with `stacworker pipelines new`")
    found = [read_pipeline(each, environ=environ) for each in folders]
    found = [*_unique(found)]
    if only is None:
        return found
    ids = {each.id for each in found}
    if missing := sorted(set(only) - ids):
        raise ConfigError(f"pipelines.only: no pipeline {', '.join(missing)}; there are: {', '.join(sorted(ids))}")
    return [each for each in found if each.id in set(only)]


def read_pipeline(folder: Path, *, environ: Mapping[str, str] | None = os.environ) -> Pipeline | Broken:
    """Read one folder; what is wrong with it comes back as `Broken`. `environ` is as in `read_pipelines`."""
    folder = folder.resolve()
    path = folder / FILE
    raw: dict[str, Any] = {}
    try:
        raw = _read(folder)
        settings = PipelineSettings.model_validate(_filled_in(raw, environ, str(path)))
        return _complete(folder, settings)
    except ValidationError as error:
        problems = tuple(f"{path}: {line}" for line in describe(error, PipelineSettings))
    except ConfigError as error:
        problems = error.problems
    except RecursionError:
        problems = (f"{path}: something in it holds itself (an alias, `*name`)",)
    named = raw.get("id")
    name = named if isinstance(named, str) and _NAME.fullmatch(named) else folder.name
    return Broken(name, folder, problems, enabled=raw.get("enabled") is not False)


def _read(folder: Path) -> dict[str, Any]:
    if not (folder / FILE).is_file() and (folder / _MISNAMED).is_file():
        raise ConfigError(f"{folder / _MISNAMED}: name it {FILE}")
    return read_mapping(folder / FILE)


def _unique(found: Iterable[Pipeline | Broken]) -> Iterable[Pipeline | Broken]:
    """Give all, a second one of the same id as broken."""
    seen: dict[str, Path] = {}
    for each in found:
        if each.id in seen:
            text = f"{each.folder / FILE}: the id {each.id!r} is that of {seen[each.id]} too"
            yield Broken(each.folder.name, each.folder, (text,))
        else:
            seen[each.id] = each.folder
            yield each


def _complete(folder: Path, settings: PipelineSettings) -> Pipeline:
    path = folder / FILE
    name = settings.id or folder.name
    if not _NAME.fullmatch(name):
        what = "id" if settings.id else "the folder's name, which is its id,"
        raise ConfigError(
            f"{path}: {what} {name!r}: use letters, digits, '.', '_' and '-', at most {_NAME_CHARS} of them"
        )
    if settings.collection is not None and settings.collection.id == "default" and settings.loading is not None:
        raise ConfigError(f"{path}: loading: `default` stands for all collections; set it in the settings file")
    if shadows := sorted(file.name for file in folder.glob("*.py") if file.stem in sys.stdlib_module_names):
        raise ConfigError(f"{path}: {', '.join(shadows)}: rename it, a module of Python itself has this name")
    generator = settings.generator
    if generator is None:
        if not (folder / "items.py").is_file():
            raise ConfigError(f"{path}: generator: name one, or write items.py with create_items(request)")
        generator = GeneratorSettings(type="items:create_items")
    inventory = settings.inventory
    if inventory is None and (folder / "inventory.py").is_file():
        inventory = "inventory:create_requests"
    schedule = settings.triggers.schedule
    if schedule is not None and schedule.requests is None and inventory is None:
        raise ConfigError(f"{path}: triggers.schedule: give requests, or write inventory.py with create_requests()")
    return Pipeline(
        name, folder, settings, _own(generator, folder), inventory, _collection_source(settings, folder, path)
    )


def _own(generator: GeneratorSettings, folder: Path) -> GeneratorSettings:
    """Return a generator's settings with the folder on its path, and its requirements found there."""
    file = generator.requirements_file
    if file is not None:
        file = str(folder / file)
    else:
        file = next((str(folder / name) for name in (LOCK, "requirements.txt") if (folder / name).is_file()), None)
    path = (str(folder), *(str(folder / each) for each in generator.path))
    asked = folder / "requirements.txt"
    # What a lock was made from, perhaps changed since: it has to be in it.
    also = _named(asked) if file is not None and file.endswith(LOCK) and asked.is_file() else ()
    requirements = (*generator.requirements, *also)
    return generator.model_copy(update={"requirements_file": file, "path": path, "requirements": requirements})


def _named(path: Path) -> tuple[str, ...]:
    """Return the requirements in a file, one a line."""
    lines = (line.split("#")[0].strip() for line in path.read_text("utf-8", "replace").splitlines())
    return tuple(line for line in lines if line and not line.startswith("-"))


def _collection_source(settings: PipelineSettings, folder: Path, path: Path) -> Path | str | None:
    source = settings.collection
    file = source.file if source is not None else None
    if source is not None and source.function is not None:
        return source.function
    if file is not None:
        if not (folder / file).is_file():
            raise ConfigError(f"{path}: collection.file: {folder / file} is not there")
        return folder / file
    if (folder / "collection.json").is_file():
        return folder / "collection.json"
    return "collection:create_collection" if (folder / "collection.py").is_file() else None


def _filled_in(value: Any, environ: Mapping[str, str] | None, where: str) -> Any:
    """Put variables' values in place of ${NAME} and ${NAME:-default}, at any depth; $$ is a dollar sign.

    Raises ConfigError for a variable that is not set and has no default.
    """
    missing: list[str] = []

    def put(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        if name is None:
            return "$"
        if environ is None:
            return default or (_UNSET_URL if name.endswith("URL") else _UNSET)
        if name not in environ and default is None:
            missing.append(name)
        return environ.get(name) or default or ""

    nodes = 0

    def fill(part: Any) -> Any:
        nonlocal nodes
        nodes += 1
        if nodes > _MAX_NODES:  # aliases of aliases make much of little
            raise ConfigError(f"{where}: it holds more than {_MAX_NODES:,} values")
        if isinstance(part, str):
            return _VARIABLE.sub(put, part)
        if isinstance(part, dict):
            return {key: fill(entry) for key, entry in part.items()}
        return [fill(entry) for entry in part] if isinstance(part, list) else part

    filled = fill(value)
    if missing:
        raise ConfigError(*(f"{where}: ${{{name}}} is not set in the environment" for name in dict.fromkeys(missing)))
    return filled
