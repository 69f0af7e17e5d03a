"""Plain functions to a type checker."""

from __future__ import annotations

from pathlib import Path

import pytest

FUNCTIONS = """
from collections.abc import AsyncIterator, Iterator
from typing import Any
from stacworker.api import CreateItems, ItemRequest

class Item:
    def to_dict(self, transform_hrefs: bool = True) -> dict[str, Any]: return {}

def plain(request: dict[str, Any]) -> dict[str, Any]: return request
def several(request: ItemRequest, gsd: int = 3) -> list[dict[str, Any]]: return [request["properties"]]
def as_object(request: ItemRequest, *, gsd: int) -> Item: return Item()
async def coroutine(request: ItemRequest) -> list[Item]: return []
async def async_generator(request: ItemRequest) -> AsyncIterator[Item]: yield Item()
def generator(request: ItemRequest) -> Iterator[Item | dict[str, Any]]: yield {}

good: list[CreateItems] = [plain, several, as_object, coroutine, async_generator, generator]

def text(request: ItemRequest) -> str: return ""
def nothing(request: ItemRequest) -> None: pass
def without_request() -> dict[str, Any]: return {}
async def number(request: ItemRequest) -> int: return 1

bad1: CreateItems = text
bad2: CreateItems = nothing
bad3: CreateItems = without_request
bad4: CreateItems = number
"""


def test_functions_of_the_plain_protocol_are_told_from_others(tmp_path: Path) -> None:
    """Every way to return items fits `CreateItems`, and nothing else does."""
    api = pytest.importorskip("mypy.api")
    file = tmp_path / "functions.py"
    file.write_text(FUNCTIONS)
    settings = tmp_path / "mypy.ini"
    settings.write_text("[mypy]\nstrict = True\nfollow_imports = silent\n")
    out, err, _ = api.run([str(file), "--config-file", str(settings), "--cache-dir", str(tmp_path / "cache")])
    lines = FUNCTIONS.splitlines()
    wrong = [lines[int(line.split(":")[1]) - 1].rpartition(" ")[2] for line in out.splitlines() if ": error:" in line]
    assert wrong == ["text", "nothing", "without_request", "number"], out + err
