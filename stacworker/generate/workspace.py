"""Where children have their temporary folders: a place that no crash of the daemon leaves behind for good.

All folders of one pool lie in one, which is locked (flock, on the folder itself) for as long as it is in use. The
kernel lets go of the lock however the process ends, so whoever starts next in the same place can tell which are
nobody's any more, and removes them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "stacworker-children-"


class Workspace:
    """A locked folder for folders."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._lock: int | None = None

    def open(self) -> None:
        """Make the folder; raises OSError when that is not possible."""
        while self._path is None:
            path = Path(tempfile.mkdtemp(prefix=_PREFIX))
            # Somebody who starts just now may have found it before it is locked, and removed it.
            with contextlib.suppress(FileNotFoundError), _opened(path) as folder:
                if _locks(folder) and path.exists():
                    self._path, self._lock = path, os.dup(folder)

    def new(self) -> str:
        """Make an empty folder for one child and return its path."""
        if self._path is None:
            raise FileNotFoundError("the workspace is not open")
        return tempfile.mkdtemp(dir=self._path)

    def close(self) -> None:
        """Remove everything, which may take a while; harmless when done before."""
        path, self._path = self._path, None
        lock, self._lock = self._lock, None
        if path is not None:
            shutil.rmtree(path, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def remove_abandoned() -> None:
    """Remove the workspaces of processes that are no more, which may take a while."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), _opened(path) as folder:
            if os.fstat(folder).st_uid == os.geteuid() and _locks(folder):
                shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """Give a descriptor of a folder, never of what a link leads to."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
