"""`stacworker check`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from stacworker.cli.opening import CommandParts, opened
from stacworker.cli.output import say, say_json, say_level
from stacworker.config import load_settings
from stacworker.database import Database
from stacworker.errors import ConfigError, StacworkerError
from stacworker.ops.check import Probe, check
from stacworker.ops.findings import Finding, error
from stacworker.settings import Settings

_T = TypeVar("_T")


async def check_settings(config: Path | None) -> list[Finding]:
    """Return what is found when everything that the settings name is looked at."""
    try:
        settings = load_settings(config)
    except ConfigError as problem:
        return [error("settings", line) for line in problem.problems]
    async with opened(settings) as parts:
        found: list[Finding] = []
        clients = await _open("aws", parts.clients, found)
        database = await _open("database", parts.database, found) if settings.loads else None
        probes = _probes(parts, settings, database)
        return found + await check(settings, clients=clients, database=database, probes=probes)


async def _open(subject: str, opening: Callable[[], Awaitable[_T]], found: list[Finding]) -> _T | None:
    try:
        return await opening()
    except StacworkerError as problem:
        found += [error(subject, line) for line in problem.reason.splitlines()]
        return None


def _probes(parts: CommandParts, settings: Settings, database: Database | None) -> dict[str, Probe]:
    async def pgstac() -> str:
        assert database is not None  # noqa: S101 - else this is no probe
        catalogue = await parts.catalogue(database)
        return f"version {catalogue.version} can be loaded into"

    async def generators() -> str:
        await parts.start_generators()
        return f"{', '.join(settings.generators)}: started, with all packages"

    probes: dict[str, Probe] = {}
    if database is not None:
        probes["pgstac"] = pgstac
    if settings.generators:
        probes["generators"] = generators
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
