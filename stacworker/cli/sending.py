"""`stacworker send`: progress while it runs, and what became of the messages."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from stacworker.aws import Aws, translated
from stacworker.cli.output import note, say, say_json
from stacworker.ops.outgoing import STDIN, read_messages
from stacworker.ops.send import Report, send

_REGION = re.compile(r"\b[a-z]{2}(?:-[a-z]+)+-\d\b")
_AWS_HOST = re.compile(r"(?:sqs\.[a-z0-9-]+|[a-z0-9-]+\.queue|queue|sqs-fips\.[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")


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
    aws = Aws(endpoint_url=endpoint_of(target, os.environ), region=region_of(target, os.environ))
    async with AsyncExitStack() as stack:
        with translated("sqs", "making a client for SQS"):
            client = await stack.enter_async_context(aws.client("sqs", read_timeout_s=30))
        messages = read_messages(files)
        return await send(client, target.queue_url, messages, group_id=target.group_id, on_progress=on_progress)


def endpoint_of(target: Target, environ: Mapping[str, str]) -> str | None:
    """Return where requests go: the option, AWS_ENDPOINT_URL, or the queue URL's host when that is not AWS's own.

    None leaves it to the region.
    """
    if target.endpoint_url:
        return target.endpoint_url
    if "AWS_ENDPOINT_URL" in environ or "AWS_ENDPOINT_URL_SQS" in environ:
        return None  # botocore reads them itself
    parts = urlsplit(target.queue_url)
    return None if _AWS_HOST.fullmatch(parts.netloc) else f"{parts.scheme}://{parts.netloc}"


def region_of(target: Target, environ: Mapping[str, str]) -> str | None:
    """Return the region: the option, what the queue URL names, AWS_REGION; for what is not AWS any will do."""
    named = _REGION.search(urlsplit(target.queue_url).netloc)
    from_environ = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    elsewhere = None if "amazonaws.com" in target.queue_url else "us-east-1"
    return target.region or (named[0] if named else None) or from_environ or elsewhere


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
