"""What a child prints: read as it comes, and only the end of it kept."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

TAIL_BYTES = 1 << 14
_READ_BYTES = 1 << 16  # what a pipe holds


class Output:
    """A pipe for a child's standard output and error. Make it in the running loop, and close it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tail = bytearray()
        self._fd, self._write_fd = os.pipe()
        os.set_blocking(self._fd, False)
        self._loop.add_reader(self._fd, self._read)

    @contextmanager
    def write_end(self) -> Iterator[int]:
        """Give the descriptor to write to, and close our copy of it afterwards. Once only."""
        try:
            yield self._write_fd
        finally:
            os.close(self._write_fd)

    def clear(self) -> None:
        """Forget what was printed so far."""
        self._read()
        self._tail.clear()

    def tail(self) -> str:
        """Return the end of what was printed, as one readable text; U+FFFD stands for any run of what is not."""
        self._read()
        text = self._tail.decode("utf-8", "replace")
        readable = "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
        return re.sub("\ufffd+", "\ufffd", readable).strip()

    def close(self) -> None:
        """Stop reading, whoever may still hold the other end."""
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._fd)
        self._tail += data
        del self._tail[:-TAIL_BYTES]
