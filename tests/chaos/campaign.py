"""Which rounds are run: every fault alone, then faults together, drawn from the seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from tests.chaos import faults_of_aws, faults_of_postgres, faults_of_workers
from tests.chaos.round import Fault

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

    seed: int
    faults: tuple[Fault, ...]
    scale: float
    seconds: float

    @property
    def name(self) -> str:
        """What goes wrong in it."""
        return " + ".join(fault.name for fault in self.faults)


def plans(seed: int, only: Sequence[str] = (), mixed: int | None = None) -> Iterator[Plan]:
    """Yield the rounds of a campaign: each fault alone, then `mixed` rounds of several (None: without end)."""
    random = Random(seed)
    chosen = [FAULTS[name] for name in only] or list(FAULTS.values())
    for fault in chosen:
        yield Plan(random.randrange(1 << 31), (fault,), 1.0, _SECONDS)
    number = 0
    while mixed is None or number < mixed:
        number += 1
        yield Plan(random.randrange(1 << 31), _together(random), _MIXED_SCALE, _MIXED_SECONDS)


def _together(random: Random) -> tuple[Fault, ...]:
    """Draw faults that can happen at the same time: one that ends workers, one of Postgres', no FIFO queue."""
    pool = [fault for fault in FAULTS.values() if not (fault.fifo or fault.settings or fault.troubles)]
    random.shuffle(pool)
    found: list[Fault] = []
    for fault in pool:
        kinds = [_kind(each) for each in found]
        if len(found) < random.randint(_MIXED_MIN, _MIXED_MAX) and (_kind(fault) is None or _kind(fault) not in kinds):
            found.append(fault)
    return tuple(found)


def _kind(fault: Fault) -> str | None:
    """Name what two faults may not both use."""
    # Who starts without being allowed to do its work ends with exit code 1, as it should.
    if fault.name.startswith("kill -9 ") or fault.name in ("2 to 8 replicas come and go", "access denied"):
        return "workers"
    return "postgres" if fault in faults_of_postgres.FAULTS else None
