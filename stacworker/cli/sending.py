"""`stacworker send`: progress while it runs, and what became of the messages."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from stacworker.aws import Aws, translated
from stacworker.cli.output import note, say, say_json
from stacworker.ops.outgoing import STDIN, read_messages
from stacworker.ops.send import Report, send

_REGION = re.compile(r"https://(?:sqs\.([a-z0-9-]+)\.|([a-z0-9-]+)\.queue\.)")


@dataclass(frozen=True, slots=True)
class Target:
    """The queue to send to, and how it is reached."""

    queue_url: str
    group_id: str | None = None
    endpoint_url: str | None = None
    region: str | None = None


def send_files(target: Target, files: Sequence[Path], *, as_json: bool) -> int:
    """Send the messages of files; return the exit code."""
    if STDIN in files and sys.stdin.isatty():
        note("reading messages from the terminal, one a line; end with Ctrl-D")
    started = time.monotonic()
    with _progress() as on_progress:
        report = asyncio.run(_send(target, files, on_progress))
    _tell(report, time.monotonic() - started, as_json=as_json)
    return 0 if report.complete else 1


async def _send(target: Target, files: Sequence[Path], on_progress: Callable[[Report], None]) -> Report:
    url = target.queue_url
    aws = Aws(endpoint_url=target.endpoint_url, region=target.region or region_of(url))
    async with AsyncExitStack() as stack:
        with translated("sqs", "making a client for SQS"):
            client = await stack.enter_async_context(aws.client("sqs", read_timeout_s=30))
        return await send(client, url, read_messages(files), group_id=target.group_id, on_progress=on_progress)


def region_of(queue_url: str) -> str | None:
    """Return the region that a queue URL of AWS names, else what the environment says, else None."""
    found = _REGION.match(queue_url)
    named = (found[1] or found[2]) if found else None
    return named or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")


@contextmanager
def _progress() -> Iterator[Callable[[Report], None]]:
    """Show a running count on a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("sending")

        def show(report: Report) -> None:
            failed = f", {len(report.unsent):,} not" if report.unsent else ""
            progress.update(task, description=f"{report.sent:,} sent{failed}")

        yield show


def _tell(report: Report, seconds: float, *, as_json: bool) -> None:
    rate = report.sent / seconds if seconds else 0.0
    for unsent in report.unsent:
        note(f"{unsent.origin}: {unsent.reason}")
    if report.stopped:
        note(f"stopped: {report.stopped}")
    if as_json:
        say_json(
            {
                "sent": report.sent,
                "unsent": [{"origin": unsent.origin, "reason": unsent.reason} for unsent in report.unsent],
                "stopped": report.stopped,
                "seconds": round(seconds, 3),
                "messages_per_second": round(rate, 1),
            }
        )
    else:
        failed = f", {len(report.unsent):,} not sent" if report.unsent else ""
        say(f"{report.sent:,} sent{failed} in {seconds:.1f} s ({rate:,.0f} a second)")
