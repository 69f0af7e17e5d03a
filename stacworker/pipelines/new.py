"""A new pipeline's folder, with a test that passes; and those of stactools-pipelines made into one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import yaml

from stacworker.errors import ConfigError
from stacworker.generate.venv import check_requirements
from stacworker.pipelines.folder import FILE
from stacworker.yaml_file import read_mapping

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,58}")
_KINDS = ("function", "raster")
_STACTOOLS = "stactools:"
_NOT_OURS = re.compile(r"(test_.*|conftest)\.py|config\.yaml|__pycache__")


@dataclass(frozen=True, slots=True)
class Made:
    """A folder that was written: its files, and what is left to do by hand."""

    folder: Path
    files: tuple[str, ...]
    left: tuple[str, ...] = ()


def new_pipeline(parent: Path, name: str, source: str) -> Made:
    """Write the folder `parent/name` for `stactools:PACKAGE`, `function` or `raster`.

    Raises ConfigError when the name cannot be one, when it is there already, or for any other source.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r}: use letters, digits, '.', '_' and '-', at most 59 of them")
    package = source.removeprefix(_STACTOOLS) if source.startswith(_STACTOOLS) else None
    if package == "" or (package is None and source not in _KINDS):
        raise ConfigError(f"--from {source}: allowed: stactools:PACKAGE, {', '.join(_KINDS)}")
    if package is not None:
        check_requirements(f"--from {source}", [package])
    values = {
        "name": name,
        "variable": _variable(name),
        "package": package or "",
        "package_name": re.split(r"[<>=!~\[; ]", package or "")[0],
    }
    return _write(parent / name, _template("stactools" if package else source, values))


def convert_pipeline(old: Path, parent: Path) -> Made:
    """Make a pipeline from a folder of stactools-pipelines: its Python files as they are, its config.yaml translated.

    Raises ConfigError when there is no such folder, or when the new one is there already.
    """
    config = read_mapping(old / "config.yaml")
    name = str(config.get("id") or old.name)
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{old / 'config.yaml'}: id: use letters, digits, '.', '_' and '-', at most 59 of them")
    if not (old / "app.py").is_file():
        raise ConfigError(f"{old}: there is no app.py in it")
    told, left = _translated(config, old)
    files = {
        str(path.relative_to(old)): path.read_bytes()
        for path in sorted(old.rglob("*"))
        if path.is_file() and not any(_NOT_OURS.fullmatch(part) for part in path.relative_to(old).parts)
    }
    text = f"# Made from {old.name}/config.yaml of stactools-pipelines; app.py runs as it is.\n"
    files[FILE] = (text + yaml.safe_dump(told, sort_keys=False, allow_unicode=True)).encode()
    return _write(parent / name, files, left)


def _translated(config: Mapping[str, Any], old: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    name = str(config.get("id") or old.name)
    variable = _variable(name)
    left = ["secret_arn and ingestor_url are not needed any more: items are loaded into pgstac"]
    triggers: dict[str, Any] = {}
    if config.get("sns"):
        triggers |= {"queue_url": f"${{{variable}_QUEUE_URL}}", "any_object": True}
        left.append(f"make a queue, subscribe it to {config['sns']}, and set {variable}_QUEUE_URL to its URL")
    told: dict[str, Any] = {"id": name, "triggers": triggers}
    generator: dict[str, Any] = {"type": "stacworker_child.lambda_items:create_items"}
    if (old / "historic.py").is_file():
        told["inventory"] = "stacworker_child.lambda_app:create_requests"
        every_h = config.get("historic_frequency") or 0
        if not isinstance(every_h, int) or every_h < 0:
            raise ConfigError(f"{old / 'config.yaml'}: historic_frequency: expected a number of hours, 0 for once")
        triggers |= {"schedule": {"every": f"{every_h}h"}} if every_h else {"once": True}
        generator["env"] = [
            "INVENTORY_LOCATION",
            "OUTPUT_LOCATION",
            "CHUNK_PARAMETER",
            "AWS_REGION",
            "AWS_DEFAULT_REGION",
        ]
        left.append(
            "historic.py reads AWS by itself: name what it may see in generator.env (also AWS_ROLE_ARN and "
            f"AWS_WEB_IDENTITY_TOKEN_FILE), and set INVENTORY_LOCATION={config.get('inventory_location')}"
        )
        if "stactools_pipelines.historic" in (old / "historic.py").read_text("utf-8", "replace"):
            left.append(
                "historic.py imports stactools_pipelines.historic.utils: copy that file into the folder and import it "
                "from there, or write inventory.py with create_requests() and drop `inventory` from pipeline.yaml"
            )
        if config.get("initial_chunk"):
            left.append(
                f"its chunks (initial_chunk {config['initial_chunk']}) are kept in an SSM parameter, CHUNK_PARAMETER; "
                "check that the query ends: stactools-pipelines never stops its schedule"
            )
    if not triggers:
        triggers["once"] = True
    told["generator"] = generator
    if (old / "collection.py").is_file():
        told["collection"] = {
            "id": _collection_id(old) or name,
            "function": "stacworker_child.lambda_app:create_collection",
        }
        if _collection_id(old) is None:
            left.append(f"{FILE}: collection.id is a guess, it must be that of what collection.py posts")
    return told, tuple(left)


def _variable(name: str) -> str:
    """Return the part of variables' names that stands for a pipeline."""
    variable = re.sub(r"\W", "_", name).upper()
    return f"_{variable}" if variable[0].isdigit() else variable


def _collection_id(old: Path) -> str | None:
    """Return the collection that app.py says its items are in."""
    match = re.search(r"""collection_id\s*=\s*["']([^"']+)["']""", (old / "app.py").read_text("utf-8", "replace"))
    return match[1] if match else None


def _template(kind: str, values: Mapping[str, str]) -> dict[str, bytes]:
    """Return the files of a template, with the values in place of $names."""
    root = resources.files("stacworker.pipelines") / "templates" / kind
    found: dict[str, bytes] = {}

    def add(folder: Any, prefix: str) -> None:
        for entry in folder.iterdir():
            if entry.is_dir():
                add(entry, f"{prefix}{entry.name}/")
            elif entry.name.endswith(".txt"):
                text = Template(entry.read_text("utf-8")).substitute(values)
                found[f"{prefix}{entry.name.removesuffix('.txt')}"] = text.encode()

    add(root, "")
    return found


def _write(folder: Path, files: Mapping[str, bytes], left: tuple[str, ...] = ()) -> Made:
    """Write all files, or nothing: the folder appears in one step."""
    if folder.exists():
        raise ConfigError(f"{folder} is there already")
    unfinished = folder.with_name(f".{folder.name}.part")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        for name, data in files.items():
            path = unfinished / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        unfinished.rename(folder)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise ConfigError(f"{folder} cannot be written: {error.strerror or error}") from error
    return Made(folder, tuple(sorted(files)), left)
