"""What can be made to go wrong in a round."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.chaos.round import Round

Environment = Callable[[Random], Mapping[str, str]]
"""Draws what a worker's environment has on top."""

FEW_TRIES = 5
"""How often SQS hands a message out before it gives it up, where no fault may cost a good message that."""
MANY_TRIES = 1000
"""The same where faults burn receives by nature: of workers that are killed, of answers that nobody gets."""

STARTS = "starts"
"""Clashes: workers are started again and again, or cannot start."""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong. `inject` does it to a running round for a while and returns how many times.

    `env` is what workers are started with, `settings` what their consumers have on top. With `generates` there are
    requests too, some of which get their generator into `troubles`. A round has one fault at most of each word in
    `clashes`; `server_wide` faults reach the servers that all rounds use.
    """

    name: str
    inject: Callable[[Round], Awaitable[int]]
    tries: int = FEW_TRIES
    generates: bool = False
    troubles: tuple[str, ...] = ()
    fifo: bool = False
    env: Environment = lambda _: {}
    settings: Mapping[str, Any] = field(default_factory=dict)
    clashes: str = ""
    server_wide: bool = False
