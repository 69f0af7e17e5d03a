"""`stacworker check`: everything that would keep the worker from working, found before it starts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from stacworker import plugins
from stacworker.database import Database
from stacworker.errors import ConfigError, StacworkerError
from stacworker.ops.check_database import check_database
from stacworker.ops.check_queues import Clients, check_output, check_queue
from stacworker.ops.findings import Finding, error, ok, warning
from stacworker.settings import MEMORY, ConsumerSettings, Settings

Probe = Callable[[], Awaitable[str]]
"""Tries one part: returns what is good about it, or raises with what is not."""


async def check(
    settings: Settings, *, clients: Clients | None, database: Database | None, probes: Mapping[str, Probe]
) -> list[Finding]:
    """Look at all that the settings name, and return what was found, in the order of the flow.

    Without `clients` no queue is looked at, without `database` no database. `probes` are what only the parts
    themselves can tell, by subject: is pgstac's version supported, do the generators start.
    """
    found = [warning("settings", text) for text in settings.warnings()]
    if not settings.consumers:
        found.append(error("settings", "no consumers: name at least one queue under `consumers`"))
    elif not found:
        found.append(ok("settings", f"{len(settings.consumers)} consumers"))
    for consumer in settings.consumers:
        found += _check_type(consumer)
        if clients is not None and not consumer.queue_url.startswith(MEMORY):
            found += await check_queue(clients, consumer)
        if clients is not None:
            found += await check_output(clients, consumer)
    if database is not None:
        found += await check_database(database)
    for subject, probe in probes.items():
        found += await _run(subject, probe)
    return found


def _check_type(consumer: ConsumerSettings) -> list[Finding]:
    try:
        plugins.resolve("consumers", consumer.type)
    except ConfigError as problem:
        return [error(f"consumer {consumer.name}", line) for line in problem.problems]
    return []


async def _run(subject: str, probe: Probe) -> list[Finding]:
    try:
        return [ok(subject, await probe())]
    except ConfigError as problem:
        return [error(subject, line) for line in problem.problems]
    except StacworkerError as problem:
        return [error(subject, problem.reason)]
