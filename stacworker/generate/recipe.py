"""What the children of one generator are made from, and what they may take."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """What children load: `module:attribute`, a function of a request or (`factory`) one that makes it."""

    ref: str
    options: Mapping[str, Any] = field(default_factory=dict)
    factory: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """How many children there are, and what each may take.

    `memory_bytes` is address space beyond what a child uses once its target is loaded; after
    `recycle_after` jobs it is replaced, and one without a job for `idle_timeout_s` is ended; `max_result_bytes` is the
    JSON of one request's items.
    """

    processes: int = 2
    timeout_s: float = 120.0
    start_timeout_s: float = 60.0
    memory_bytes: int = 1 << 30
    recycle_after: int = 1000
    idle_timeout_s: float = 300.0
    max_result_bytes: int = 256_000_000


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the children of one generator are made.

    `name` is the generator's, for errors and metrics; `env` is their whole environment; `path` goes
    first in their `sys.path`; `interpreter` may be another environment's.
    """

    name: str
    target: Target
    limits: Limits
    env: Mapping[str, str]
    path: tuple[str, ...] = ()
    interpreter: str = sys.executable
