"""All scenes there are: asked for at each start, so that none is missed that came while nothing ran."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def create_requests() -> Iterator[dict[str, str]]:
    """Yield a request for each file in the folder that SCENES_FOLDER names."""
    for path in sorted(Path(os.environ.get("SCENES_FOLDER", "/data/scenes")).glob("*.tif")):
        yield {"href": str(path)}
