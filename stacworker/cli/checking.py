"""`stacworker check`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TypeVar

from stacworker.cli.opening import CommandParts, opened
from stacworker.cli.output import say, say_json, say_level
from stacworker.config import load_settings
from stacworker.database import Database
from stacworker.errors import ConfigError, StacworkerError
from stacworker.ops.check import Probe, check
from stacworker.ops.findings import Finding, error
from stacworker.pipeline_parts import read_collection
from stacworker.pipelines.folder import Pipeline
from stacworker.pipelines.loaded import Loaded, with_pipelines

_T = TypeVar("_T")


async def check_settings(config: Path | None, pipelines: Path | None) -> list[Finding]:
    """Return what is found when everything that the settings and the pipelines name is looked at."""
    try:
        loaded = with_pipelines(load_settings(config, pipelines=pipelines), os.environ)
    except ConfigError as problem:
        return [error("settings", line) for line in problem.problems]
    settings = loaded.settings
    async with opened(settings) as parts:
        found: list[Finding] = []
        clients = await _open("aws", parts.clients, found)
        database = await _open("database", parts.database, found) if settings.loads else None
        probes = _probes(parts, loaded, database)
        found += [error(f"pipeline {each.id}", line) for each in loaded.broken for line in each.problems]
        return found + await check(settings, clients=clients, database=database, probes=probes)


async def _open(subject: str, opening: Callable[[], Awaitable[_T]], found: list[Finding]) -> _T | None:
    try:
        return await opening()
    except StacworkerError as problem:
        found += [error(subject, line) for line in problem.reason.splitlines()]
        return None


def _probes(parts: CommandParts, loaded: Loaded, database: Database | None) -> dict[str, Probe]:
    async def pgstac() -> str:
        assert database is not None  # noqa: S101 - else this is no probe
        catalogue = await parts.catalogue(database)
        return f"version {catalogue.version} can be loaded into"

    async def generator(name: str) -> str:
        await parts.generators.start([name])
        return f"started: {parts.generators.about(name)}"

    async def collection(pipeline: Pipeline) -> str:
        found = await read_collection(parts, pipeline)
        return f"collection {found['id']} can be had"

    probes: dict[str, Probe] = {}
    if database is not None:
        probes["pgstac"] = pgstac
    for name in loaded.settings.generators:
        probes[f"generator {name}"] = partial(generator, name)
    for pipeline in loaded.pipelines:
        if pipeline.collection_source is not None:
            probes[f"pipeline {pipeline.id}"] = partial(collection, pipeline)
    return probes


def tell(findings: Sequence[Finding], *, as_json: bool) -> int:
    """Print the findings; return the exit code."""
    counts = Counter(finding.level for finding in findings)
    if as_json:
        say_json({"ok": not counts["error"], "findings": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            say_level(finding.level, str(finding))
        say(f"{counts['ok']} ok, {counts['warning']} warnings, {counts['error']} errors")
    return 1 if counts["error"] else 0
