"""What a check finds: a line with a level, the thing it is about, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: `subject` is what was looked at, `text` what was found and, unless ok, what to do."""

    level: Level
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.text}"


def ok(subject: str, text: str) -> Finding:
    """Return a finding that needs nothing done."""
    return Finding("ok", subject, text)


def warning(subject: str, text: str) -> Finding:
    """Return a finding that works and is probably not meant."""
    return Finding("warning", subject, text)


def error(subject: str, text: str) -> Finding:
    """Return a finding that keeps the worker from working."""
    return Finding("error", subject, text)
