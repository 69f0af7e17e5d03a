"""values.yaml as its comments explain it: each key under a `# --` comment, with its default."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

_COMMENT = re.compile(r"^(?P<indent> *)# ?(?P<text>.*)$")
_KEY = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z][A-Za-z0-9]*):")
_MARK = "-- "


@dataclass(frozen=True, slots=True)
class Entry:
    """A value that is explained."""

    path: tuple[str, ...]
    text: str
    default: Any


def entries(text: str) -> list[Entry]:
    """Return what is explained in a values.yaml, in its order."""
    values = yaml.safe_load(text)
    return [Entry(path, words, _at(values, path)) for path, words in _explained(text) if words]


def unexplained(text: str) -> list[str]:
    """Return keys that hold a value, lie under no explained key, and are not explained."""
    explained = {path for path, words in _explained(text) if words}
    parents = {path[:-1] for path, _ in _explained(text)}
    return [
        ".".join(path)
        for path, words in _explained(text)
        if not words and path not in parents and not any(path[: len(each)] == each for each in explained)
    ]


def _explained(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield each key's path with its comment, "" where there is none."""
    stack: list[tuple[int, str]] = []
    words: list[str] = []
    for line in text.splitlines():
        if comment := _COMMENT.match(line):
            said = comment["text"]
            if said.startswith(_MARK):
                words = [said.removeprefix(_MARK)]
            elif words:
                words.append(said)
            continue
        if key := _KEY.match(line):
            indent = len(key["indent"])
            stack = [each for each in stack if each[0] < indent] + [(indent, key["key"])]
            yield tuple(name for _, name in stack), " ".join(words)
        words = []


def _at(values: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        values = values[key]
    return values
