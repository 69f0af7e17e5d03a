"""Start a child: `python -P …/child/__main__.py FD PARENT`.

The folder becomes the package `stacworker_child`, wherever it lies: its neighbours on disk (which may be
a whole environment) do not become importable, and stacworker itself need not be installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

NAME = "stacworker_child"


def start(fd: int, parent: int) -> int:
    """Make the package, and serve the parent on `fd`, in a process under guard; return the exit status."""
    folder = Path(__file__).parent
    spec = importlib.util.spec_from_file_location(
        NAME, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder} cannot be imported")
    sys.modules[NAME] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[NAME])
    importlib.import_module(f"{NAME}.guard").under_guard(parent, fd)
    status: int = importlib.import_module(f"{NAME}.worker").serve(fd)
    return status


if __name__ == "__main__":
    sys.exit(start(int(sys.argv[1]), int(sys.argv[2])))
