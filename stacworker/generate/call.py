"""One call of a function in a child process of its own, for what is not asked for by messages."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from stacworker.generate.process import Child
from stacworker.generate.recipe import Recipe
from stacworker.generate.workspace import Workspace


async def results(recipe: Recipe, *, origin: str) -> AsyncGenerator[dict[str, Any], None]:
    """Give what the recipe's target returns for an empty request, as it comes; its child is gone at the end.

    `origin` says in errors what was called. Raises what `Child.start` and `Child.stream` raise. Close the
    generator (`contextlib.aclosing`) when leaving it early.
    """
    workspace = Workspace()
    await asyncio.to_thread(workspace.open)
    child = Child(recipe, workspace)
    try:
        await child.start()
        async with contextlib.aclosing(child.stream({}, origin=origin)) as found:
            async for each in found:
                yield each
    finally:
        await child.close()
        await asyncio.to_thread(workspace.close)
