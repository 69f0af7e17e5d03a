"""Which rounds are run: every fault alone, then faults together, drawn from the seed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from tests.chaos import faults_of_aws, faults_of_postgres, faults_of_workers
from tests.chaos.fault import Fault

FAULTS: dict[str, Fault] = {
    fault.name: fault for part in (faults_of_workers, faults_of_postgres, faults_of_aws) for fault in part.FAULTS
}
_MIXED_MIN, _MIXED_MAX = 3, 5
_SECONDS = 3.0
_MIXED_SECONDS = 8.0
_MIXED_SCALE = 3.0


@dataclass(frozen=True, slots=True)
class Plan:
    """One round to run."""

    number: int
    seed: int
    faults: tuple[Fault, ...]
    scale: float
    seconds: float

    @property
    def name(self) -> str:
        """What goes wrong in it."""
        return " + ".join(fault.name for fault in self.faults)

    @property
    def mixed(self) -> bool:
        """True when several things go wrong at once."""
        return len(self.faults) > 1


def plans(seed: int, only: Sequence[str] = (), mixed: int | None = None) -> Iterator[Plan]:
    """Yield the rounds of a campaign: each fault alone, then `mixed` rounds of several (None: without end)."""
    random = Random(seed)
    alone = [FAULTS[name] for name in only] or list(FAULTS.values())
    for number, fault in enumerate(alone):
        yield Plan(number, random.randrange(1 << 31), (fault,), 1.0, _SECONDS)
    while mixed is None or number + 1 < len(alone) + mixed:
        number += 1
        yield Plan(number, random.randrange(1 << 31), _together(random), _MIXED_SCALE, _MIXED_SECONDS)


def _together(random: Random) -> tuple[Fault, ...]:
    """Draw faults that can happen at the same time."""
    pool = [fault for fault in FAULTS.values() if not (fault.fifo or fault.settings or fault.troubles)]
    random.shuffle(pool)
    wanted = random.randint(_MIXED_MIN, _MIXED_MAX)
    found: list[Fault] = []
    for fault in pool:
        if len(found) < wanted and not (fault.clashes and fault.clashes in [each.clashes for each in found]):
            found.append(fault)
    return tuple(found)


class Places:
    """Lets so many rounds be under way, and one that reaches the servers of all alone.

    Rounds begin in the order in which they ask.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._free = asyncio.Semaphore(places)

    async def take(self, plan: Plan) -> None:
        """Return when there is room for a round. To be awaited by one task only."""
        for _ in range(self._wanted(plan)):
            await self._free.acquire()

    def leave(self, plan: Plan) -> None:
        """Give back the place of a round that is over."""
        for _ in range(self._wanted(plan)):
            self._free.release()

    def _wanted(self, plan: Plan) -> int:
        return self._places if any(fault.server_wide for fault in plan.faults) else 1
