"""Read what shall be sent: files and standard input become messages, one at a time.

A `.json` or `.geojson` file is one message, whatever its layout; every other file, and standard
input, holds one message per line. What cannot be sent comes out as `Unsent`, in its place.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

STDIN = Path("-")
ONE_MESSAGE_SUFFIXES = (".json", ".geojson")

MAX_MESSAGE_BYTES = 1_048_576
"""What SQS takes, for one message and for one batch.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
"""

# The characters that SQS refuses, and a whole batch with them.
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
_REFUSED = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message to send; `origin` is `file:line`, and `size_bytes` that of the body in UTF-8."""

    origin: str
    body: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Unsent:
    """A message that was not sent, and why."""

    origin: str
    reason: str


def read_messages(paths: Iterable[Path]) -> Iterator[Outgoing | Unsent]:
    """Yield the messages of the files in their order; `-` is standard input. Raises nothing."""
    for path in paths:
        try:
            if path == STDIN:
                yield from _lines(sys.stdin.buffer, "-")
            elif path.suffix.lower() in ONE_MESSAGE_SUFFIXES:
                with path.open("rb") as file:
                    yield _message(str(path), file.read(MAX_MESSAGE_BYTES + 1))
            else:
                with path.open("rb") as file:
                    yield from _lines(file, str(path))
        except OSError as error:
            yield Unsent(str(path), f"cannot be read: {error.strerror or error}")


def _lines(file: BinaryIO, name: str) -> Iterator[Outgoing | Unsent]:
    number = 0
    while line := file.readline(MAX_MESSAGE_BYTES + 2):
        number += 1
        rest = line
        while rest and not rest.endswith(b"\n"):  # the end of a line that is too long, or of the file
            rest = file.readline(MAX_MESSAGE_BYTES)
        if text := line.strip():
            yield _message(f"{name}:{number}", text)


def _message(origin: str, data: bytes) -> Outgoing | Unsent:
    if len(data) > MAX_MESSAGE_BYTES:
        return Unsent(origin, f"larger than the {MAX_MESSAGE_BYTES:,} bytes that SQS takes: put it in S3, send its URL")
    try:
        body = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Unsent(origin, f"not UTF-8 at byte {error.start}: convert it")
    if not body.strip():
        return Unsent(origin, "empty: SQS takes no empty message")
    if found := _REFUSED.search(body):
        return Unsent(origin, f"holds the character U+{ord(found[0]):04X}, which SQS refuses")
    return Outgoing(origin, body, len(data))
