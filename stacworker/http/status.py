"""What health and readiness look at."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from stacworker.lifecycle import Lifecycle


class Watched(Protocol):
    """A part that polls a queue."""

    name: str

    @property
    def beat_at(self) -> float:
        """Monotonic seconds of its last sign of life."""

    @property
    def beat_every_s(self) -> float:
        """Seconds between two signs of life, at most, while it is well."""

    @property
    def paused_because(self) -> str | None:
        """Why it does not poll now; None while it does."""


@dataclass(slots=True)
class Status:
    """The state of the process, as the endpoints tell it. `started` is set once all parts run."""

    lifecycle: Lifecycle
    monotonic: Callable[[], float] = time.monotonic
    parts: Sequence[Watched] = field(default_factory=tuple)
    started: bool = False

    def dead(self) -> list[str]:
        """Return the parts whose heartbeat has stopped; dependencies never count."""
        now = self.monotonic()
        return [
            f"{part.name}: no sign of life for {now - part.beat_at:.0f} s"
            for part in self.parts
            if now - part.beat_at > 3 * part.beat_every_s + 10
        ]

    def not_ready(self) -> list[str]:
        """Return why work does not flow."""
        if not self.started:
            return ["starting"]
        if self.lifecycle.draining.is_set():
            return ["draining"]
        return [f"{part.name}: {part.paused_because}" for part in self.parts if part.paused_because is not None]
