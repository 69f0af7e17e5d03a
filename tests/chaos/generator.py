"""The generator under test: gives back the items that a request holds, and gets into the trouble it asks for."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any


def create_items(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the request's `items`; before that, get into `trouble`: once (a file in `once_in` tells), or always."""
    trouble, once_in = request.get("trouble"), request.get("once_in")
    if trouble and (once_in is None or _first_time(Path(once_in, request["id"]))):
        _TROUBLES[trouble]()
    items: list[dict[str, Any]] = request["items"]
    return items


def _first_time(note: Path) -> bool:
    try:
        note.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _crash() -> None:
    os._exit(3)


def _hang() -> None:
    while True:
        time.sleep(60)


def _spin() -> None:
    while True:
        pass


def _leak() -> None:
    hoard = []
    while True:
        hoard.append(bytearray(1 << 24))


def _print() -> None:
    sys.stdout.write('{"done": 0}\n' * 1000)
    os.write(1, b"\x00\x00\x00\x05\xff\xfe" * 5000)
    os.write(2, b"\xff garbage " * 5000)


def _close() -> None:
    os.closerange(0, 256)


def _fail() -> None:
    raise ConnectionError("the archive does not answer")


_TROUBLES = {
    "crash": _crash,
    "hang": _hang,
    "spin": _spin,
    "leak": _leak,
    "print": _print,
    "close": _close,
    "raise": _fail,
}
TROUBLES = tuple(_TROUBLES)
