"""What the commands of `stacworker pipelines` do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from stacworker import log
from stacworker.cli.output import note
from stacworker.config import load_settings
from stacworker.errors import ConfigError
from stacworker.generate.venv import Venvs, Wanted, default_folder
from stacworker.generators import Generators
from stacworker.lifecycle import Lifecycle
from stacworker.metrics import Metrics
from stacworker.pipelines.folder import LOCK, Broken, Pipeline, read_pipelines
from stacworker.settings import GeneratorSettings, Settings

_QUIET = ("-o", "asyncio_default_fixture_loop_scope=function")
_NO_TESTS = 5
"""pytest's exit code when it collected none."""


def read(config: Path | None, folder: Path | None, ids: Sequence[str] | None = None) -> list[Pipeline | Broken]:
    """Return the pipelines of the folder given, that the settings name, or `pipelines`; variables may be unset.

    Raises ConfigError as `read_pipelines` does.
    """
    return _read(load_settings(config, pipelines=folder), ids)


def described(pipeline: Pipeline | Broken) -> dict[str, Any]:
    """Return what a listing tells of a pipeline."""
    if isinstance(pipeline, Broken):
        return {"id": pipeline.id, "folder": str(pipeline.folder), "problems": list(pipeline.problems)}
    settings, triggers = pipeline.settings, pipeline.settings.triggers
    shown = {
        "queue": triggers.queue_url is not None,
        "once": bool(triggers.once),
        "schedule": triggers.schedule is not None,
        "feed": triggers.feed is not None,
    }
    generator = pipeline.generator
    packages = " ".join(generator.packages)
    return {
        "id": pipeline.id,
        "folder": str(pipeline.folder),
        "enabled": settings.enabled,
        "description": settings.description,
        "triggers": [name for name, there in shown.items() if there],
        "generator": f"{generator.type} {packages}".strip(),
        "pinned": generator.requirements_file is not None and generator.requirements_file.endswith(LOCK),
        "collection": pipeline.collection,
        "output": settings.output,
        "problems": [],
    }


async def install(config: Path | None, folder: Path | None, ids: Sequence[str] | None) -> list[dict[str, Any]]:
    """Make the environments of the generators that have their own; return a row for each generator.

    Without `ids` those of the settings are among them. Raises ConfigError with what could not be made.
    """
    settings = load_settings(config, pipelines=folder)
    log.configure("warning", settings.log.format)
    found: dict[str, GeneratorSettings] = {} if ids else dict(settings.generators)
    if ids or not found or settings.pipelines.folder is not None:
        found |= {each.id: each.generator for each in _whole(_read(settings, ids))}
    environments = settings.environments.model_copy(update={"install_at_start": True})
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    async with AsyncExitStack() as stack:
        generators = Generators(found, environments, stack, Lifecycle(drain_timeout_s=0), Metrics())
        for name in found:
            try:
                venv = await generators.install(name)
            except ConfigError as error:
                problems += error.problems
                continue
            rows.append(
                {
                    "generator": name,
                    "environment": None if venv is None else str(venv.folder),
                    "packages": 0 if venv is None else len(venv.packages),
                }
            )
    if problems:
        raise ConfigError(*problems)
    return rows


async def lock(config: Path | None, folder: Path | None, ids: Sequence[str] | None) -> list[Path]:
    """Write requirements.lock in each pipeline's folder that needs packages; return the files written."""
    settings = load_settings(config, pipelines=folder)
    log.configure("warning", settings.log.format)
    venvs = Venvs(Path(settings.environments.folder or default_folder(os.environ)), os.environ)
    written: list[Path] = []
    for pipeline in _whole(_read(settings, ids)):
        generator, asked = pipeline.generator, pipeline.folder / "requirements.txt"
        told = pipeline.settings.generator
        if told is not None and told.requirements_file is not None:
            raise ConfigError(
                f"{pipeline.folder}: generator.requirements_file: drop it, and call that file requirements.txt: then "
                f"{LOCK} is made of it, and used"
            )
        wanted = Wanted((*generator.packages, *generator.requirements), asked if asked.is_file() else None)
        if not wanted.requirements and wanted.file is None:
            note(f"{pipeline.id}: needs no packages")
            continue
        path = pipeline.folder / LOCK
        path.write_text(await venvs.lock(wanted), "utf-8")
        written.append(path)
    return written


def run_tests(config: Path | None, folder: Path | None, ids: Sequence[str] | None) -> int:
    """Run pytest on each pipeline's `tests`, each in a process of its own; return the exit code."""
    failed = []
    for pipeline in _read(load_settings(config, pipelines=folder), ids):
        note(f"== {pipeline.id}")
        if isinstance(pipeline, Broken):
            failed.append(pipeline.id)
            _tell(pipeline.problems)
            continue
        # Not collected by the rules of whatever project the folder lies in.
        command = (sys.executable, "-m", "pytest", "-c", os.devnull, "-o", "asyncio_mode=auto", *_QUIET)
        place = ("--rootdir", str(pipeline.folder), "-p", "no:cacheprovider", str(pipeline.folder))
        code = subprocess.run([*command, *place], check=False, cwd=pipeline.folder).returncode  # noqa: S603 - ours
        if code == _NO_TESTS:
            note(f"{pipeline.id}: has no tests: write tests/test_pipeline.py (`stacworker pipelines new` shows how)")
        if code:
            failed.append(pipeline.id)
    if failed:
        note(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def _read(settings: Settings, ids: Sequence[str] | None) -> list[Pipeline | Broken]:
    folder = Path(settings.pipelines.folder or "pipelines")
    return read_pipelines(folder, environ=None, only=ids or settings.pipelines.only)


def _whole(found: Iterable[Pipeline | Broken]) -> list[Pipeline]:
    """Return pipelines; raises ConfigError when one is broken."""
    found = list(found)
    if problems := [problem for each in found if isinstance(each, Broken) for problem in each.problems]:
        raise ConfigError(*problems)
    return [each for each in found if isinstance(each, Pipeline)]


def _tell(problems: Iterable[str]) -> None:
    for problem in problems:
        note(problem)
