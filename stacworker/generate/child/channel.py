"""Frames between parent and child, and the child's end of the socket."""

from __future__ import annotations

import json
import os
import struct
from typing import Any

HEADER = struct.Struct(">I")


class Channel:
    """The socket to the parent."""

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)  # noqa: FBT003 - the standard library's signature
        self._in = open(fd, "rb", closefd=False)  # noqa: SIM115 - kept for life
        self._out = open(fd, "wb", closefd=False)  # noqa: SIM115 - kept for life
        self._pid = os.getpid()

    def receive(self) -> Any:
        """Return the next frame's content, or None when the parent is gone."""
        header = self._in.read(HEADER.size)
        if len(header) < HEADER.size:
            return None
        (length,) = HEADER.unpack(header)
        return json.loads(self._in.read(length))

    def send(self, content: dict[str, Any]) -> None:
        """Send one frame, and whatever waits to be sent."""
        # A lone surrogate, as in the name of a file that is not UTF-8, is not JSON to the parent.
        self._write(json.dumps(content, ensure_ascii=False).encode("utf-8", "replace"))
        self._out.flush()

    def send_item(self, data: bytes) -> None:
        """Send an item that is JSON already; it may wait for the next `send`."""
        self._write(b'{"item":' + data + b"}")

    def exit_if_forked(self) -> None:
        """End this process where it is a copy that the target's fork made: only the original answers."""
        if os.getpid() != self._pid:
            os._exit(1)

    def _write(self, data: bytes) -> None:
        self.exit_if_forked()
        self._out.write(HEADER.pack(len(data)) + data)
