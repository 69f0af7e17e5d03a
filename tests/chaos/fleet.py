"""The workers of a round: real processes of the daemon that come and go."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos.oracle import Violation
from tests.chaos.world import CREDENTIALS
from tests.integration.worker import Worker, metric_in

REPOSITORY = Path(__file__).parents[2]
_FORESEEN = 0, -signal.SIGKILL
_SIGNALLED = -signal.SIGTERM, -signal.SIGINT
_UNFORESEEN = ("unexpected", "exit.overtime", "Traceback")
_OUTCOMES = ("acked", "retried", "dead_lettered", "released")

Environment = Callable[[Random], Mapping[str, str]]


class Fleet:
    """Starts and ends workers with the same settings; `env` gives what each gets on top of its environment."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], random: Random) -> None:
        self._folder = folder
        self._settings = settings
        self._random = random
        self._all: list[Worker] = []
        self.env: Environment = lambda _: {}

    @property
    def alive(self) -> list[Worker]:
        """The workers that run now."""
        return [worker for worker in self._all if worker.exit_code is None]

    def add(self) -> Worker:
        """Start one more worker; it is not ready yet."""
        env = {
            **CREDENTIALS,
            "AWS_EC2_METADATA_DISABLED": "true",
            "PYTHONPATH": str(REPOSITORY),
            "TMPDIR": str(self._folder),
            **self.env(self._random),
        }
        name = f"worker-{len(self._all):02}"
        worker = Worker(self._folder, self._settings, env, name=name, module="tests.chaos.launcher")
        worker.spawn()
        self._all.append(worker)
        return worker

    async def fill(self, replicas: int, *, ready: bool = True) -> None:
        """Start workers until there are so many."""
        added = [self.add() for _ in range(replicas - len(self.alive))]
        if ready:
            await asyncio.gather(*(worker.until(worker.is_ready, within_s=60) for worker in added))

    def one(self) -> Worker | None:
        """Return one that runs, at random."""
        alive = self.alive
        return self._random.choice(alive) if alive else None

    async def drain(self) -> list[Violation]:
        """End all that run with SIGTERM; return what was wrong with any of all workers."""
        violations = [each for worker in self.alive for each in await asyncio.to_thread(_accounts, worker)]
        for worker in self.alive:
            worker.signal(signal.SIGTERM)
        codes = await asyncio.gather(*(worker.ended(60) for worker in self._all))
        for worker, code in zip(self._all, codes, strict=True):
            never_began = code in _SIGNALLED and not worker.log()
            signalled_twice = bool(worker.events("exit.forced"))
            if code not in _FORESEEN and not never_began and not signalled_twice:
                violations.append(
                    Violation("unclean", f"{worker.log_file.name} ended with {code}: {worker.log()[-2000:]}")
                )
            violations += _unforeseen(worker.log_file)
        return violations

    def close(self) -> None:
        """Kill what still runs."""
        for worker in self._all:
            worker.cleanup()


def _accounts(worker: Worker) -> list[Violation]:
    """Check that each message that a worker received had one outcome, or is in hand."""
    text = worker.get("/metrics")[1]  # once: the worker goes on
    received, in_hand = metric_in(text, "messages_received_total"), metric_in(text, "in_flight_messages")
    ended = sum(metric_in(text, "messages_total", outcome=outcome) for outcome in _OUTCOMES)
    if received == ended + in_hand:
        return []
    return [Violation("unclean", f"{worker.log_file.name} received {received}, ended {ended}, has {in_hand} in hand")]


def _unforeseen(log: Path) -> list[Violation]:
    found = []
    for line in log.read_text(errors="replace").splitlines():
        event = str(json.loads(line).get("event")) if line.startswith("{") else line
        if any(word in event for word in _UNFORESEEN):
            found.append(Violation("unclean", f"{log.name} says {line[:1500]}"))
    return found[:3]
